// One step of a recurrent layer for some rows and units, forward and backward; what the letters mean: recurrence_table.h.
//
//   RNN      h = act(a)                                                       da = dh act'
//   GRU      r, z = sigmoid a      q = h_b W_hn' + b_hn                       dn = dh (1 - z)      da_n = dn (1 - n^2)     dq = da_n r
//            n = tanh(a_n + r q)                                              da_r = da_n q r (1 - r)
//            h = n + z (h_b - n)                                              da_z = dh (h_b - n) z (1 - z)       dh_b = dh z + ...
//   LSTM     i = sigmoid(a_i + p_i c_b)      f = sigmoid(a_f + p_f c_b), or 1 - i where they are coupled
//            g = tanh a_g      c = f c_b + i g      o = sigmoid(a_o + p_o c)
//            h = o tanh(m)     m = c, or c normalised      da_o = dh tanh(m) o (1 - o)     dm = dh o (1 - tanh(m)^2)
//                                                          dc = dc + dm + da_o p_o         da_g = dc i (1 - g^2)
//                                                          da_i = dc g i (1 - i), or dc (g - c_b) i (1 - i)
//                                                          da_f = dc c_b f (1 - f)         dc_b = dc f + da_i p_i + da_f p_f
//   zone     s = k s_b + (1 - k) s_new for the state's tensors, k the share of the old value
//   norm     a = a_x + (p - mean p) / deviation p * gain,    p = h_b W_hh', over all gates, or over r z and n apart
//
// a holds the input's part when a step begins; h_b and c_b are the state before. Equations and sources: time/*_cell.py, which define
// what is computed here. Compiled once per instruction set, in the namespace TWOFOLD_SET.

namespace twofold {
namespace TWOFOLD_SET {

constexpr float kNormEpsilon = 1e-5f;

// The state before step t, of one row.
struct Before {
  const float *h, *c;
  Before(const Recurrence& r, int64_t t, int64_t row) {
    const int64_t s = r.reverse ? t + 1 : t - 1;
    if (s >= 0 && s < r.T && row < r.rows(s)) {
      h = r.y + (r.start(s) + row) * r.y_step;
      c = r.c ? r.c + (r.start(s) + row) * r.U : nullptr;
    } else {
      h = r.h_0 + row * r.U;
      c = r.c_0 ? r.c_0 + row * r.U : nullptr;
    }
  }
};

inline float total(Floats v) {
  float sum = 0.0f;
  for (int l = 0; l < kLanes; ++l) sum += v[l];
  return sum;
}

// mean and 1 / deviation of n numbers
inline void moments_of(const float* x, int64_t n, float* moments) {
  Floats sum{}, squares{};
  for (int64_t u = 0; u < n; u += kLanes) sum = sum + load_most(x + u, n - u);
  const float mean = total(sum) / n;
  for (int64_t u = 0; u < n; u += kLanes) {
    const Floats away = keep_first(load_most(x + u, n - u) - mean, n - u);
    squares = squares + away * away;
  }
  moments[0] = mean;
  moments[1] = 1.0f / __builtin_sqrtf(total(squares) / n + kNormEpsilon);
}

inline void put_most(float* to, Floats v, int64_t n) {
  if (n >= kLanes) store(to, v);
  else store_first(to, v, n);
}

// to += v
inline void add_to(float* to, Floats v, int64_t n) { put_most(to, load_most(to, n) + v, n); }

// s = k s_b + (1 - k) s_new
inline Floats kept(const float* zone, float keep, int64_t at, int64_t n, Floats before, Floats now) {
  const Floats k = zone ? load_most(zone + at, n) : every(keep);
  return now + k * (before - now);
}

// The old value's share of ds; ds becomes the new one's.
inline Floats shared(const float* zone, float keep, int64_t at, int64_t n, Floats& ds) {
  const Floats k = zone ? load_most(zone + at, n) : every(keep);
  const Floats old = k * ds;
  ds = ds - old;
  return old;
}

// A run of units of one row of one step.
struct Units {
  const Recurrence& r;
  int64_t t, row, n, begin, end;
  Before before;
  float *a, *y;
  Units(const Recurrence& r, int64_t t, int64_t row, int64_t begin, int64_t end)
      : r(r), t(t), row(row), n(r.start(t) + row), begin(begin), end(end), before(r, t, row), a(r.gates + n * r.gate_count() * r.U),
        y(r.y + n * r.y_step) {}

  // Pre-activation of a gate, with what the state adds where that is normalised.
  Floats preactivation(int64_t gate, int64_t u, int64_t group) const {
    const Floats drive = load_most(a + gate * r.U + u, end - u);
    return r.product ? drive + normalised(gate, u, group) : drive;
  }
  Floats normalised(int64_t gate, int64_t u, int64_t group) const {
    return standard(gate, u, group) * load_most(r.norm_hh + gate * r.U + u, end - u);
  }
  Floats standard(int64_t gate, int64_t u, int64_t group) const {
    const float* moments = r.moments + n * 4 + 2 * group;
    return (load_most(r.product + (n * r.gate_count() + gate) * r.U + u, end - u) - moments[0]) * moments[1];
  }
  void keep_gate(int64_t gate, int64_t u, Floats v) const { put_most(a + gate * r.U + u, v, end - u); }
  Floats gate(int64_t gate, int64_t u) const { return load_most(a + gate * r.U + u, end - u); }

  // The new h, perhaps mixed with the old one, to y and to where the next step sees it.
  void remember(int64_t u, Floats h) const {
    const int64_t left = end - u;
    if (r.zone_h || r.keep_h != 0.0f) h = kept(r.zone_h, r.keep_h, n * r.U + u, left, load_most(before.h + u, left), h);
    put_most(y + u, h, left);
    if (r.seen) {
      const Floats seen = r.mask ? h * load_most(r.mask + row * r.U + u, left) : h;
      store_cells(seen, r.seen + ((1 - (t & 1)) * r.B + row) * r.seen_step, u, left);
    }
  }
};

inline void rnn_forward(const Units& row, bool relu) {
  for (int64_t u = row.begin; u < row.end; u += kLanes) {
    const Floats a = row.preactivation(0, u, 0);
    const Floats h = relu ? (a <= 0.0f ? Floats{} : a) : tangent(a);  // NaN stays
    row.keep_gate(0, u, h);
    row.remember(u, h);
  }
}

// q: without normalisation the product wrote it; with it, it is made of the product.
inline Floats gru_q(const Units& row, int64_t u) {
  const Recurrence& r = row.r;
  if (!r.product) return load_most(r.q + row.n * r.U + u, row.end - u);
  const Floats normal = row.normalised(2, u, 1);
  return r.bias_n ? normal + load_most(r.bias_n + u, row.end - u) : normal;
}

inline void gru_forward(const Units& row) {
  for (int64_t u = row.begin; u < row.end; u += kLanes) {
    const Floats reset = sigmoid(row.preactivation(0, u, 0)), z = sigmoid(row.preactivation(1, u, 0));
    const Floats n = tangent(row.gate(2, u) + reset * gru_q(row, u));
    row.keep_gate(0, u, reset);
    row.keep_gate(1, u, z);
    row.keep_gate(2, u, n);
    row.remember(u, n + z * (load_most(row.before.h + u, row.end - u) - n));
  }
}

template <bool coupled>
inline void lstm_forward(const Units& row) {
  constexpr int64_t g_at = coupled ? 1 : 2, o_at = coupled ? 2 : 3;
  const Recurrence& r = row.r;
  float* c_row = r.c + row.n * r.U;
  float* raw_row = r.c_raw ? r.c_raw + row.n * r.U : c_row;
  for (int64_t u = row.begin; u < row.end; u += kLanes) {
    const int64_t left = row.end - u;
    const Floats c_before = load_most(row.before.c + u, left);
    Floats a_i = row.preactivation(0, u, 0);
    if (r.peephole) a_i = a_i + load_most(r.peephole + u, left) * c_before;
    const Floats i = sigmoid(a_i), g = tangent(row.preactivation(g_at, u, 0));
    Floats c;
    if constexpr (coupled) {
      c = c_before + i * (g - c_before);
    } else {
      Floats a_f = row.preactivation(1, u, 0);
      if (r.peephole) a_f = a_f + load_most(r.peephole + r.U + u, left) * c_before;
      const Floats f = sigmoid(a_f);
      row.keep_gate(1, u, f);
      c = f * c_before + i * g;
    }
    Floats a_o = row.preactivation(o_at, u, 0);
    if (r.peephole) a_o = a_o + load_most(r.peephole + (coupled ? 1 : 2) * r.U + u, left) * c;
    const Floats o = sigmoid(a_o);
    row.keep_gate(0, u, i);
    row.keep_gate(g_at, u, g);
    row.keep_gate(o_at, u, o);
    put_most(raw_row + u, c, left);
    if (r.c_raw) put_most(c_row + u, kept(r.zone_c, r.keep_c, row.n * r.U + u, left, c_before, c), left);
    if (!r.norm_c) row.remember(u, o * tangent(c));
  }
  if (!r.norm_c) return;
  float* moments = r.cell_moments + 2 * row.n;
  moments_of(raw_row, r.U, moments);
  for (int64_t u = row.begin; u < row.end; u += kLanes) {
    const int64_t left = row.end - u;
    const Floats standard = (load_most(raw_row + u, left) - moments[0]) * moments[1];
    const Floats m = standard * load_most(r.norm_c + u, left) + load_most(r.norm_c_bias + u, left);
    row.remember(u, row.gate(o_at, u) * tangent(m));
  }
}

// What a step multiplies with the weights: rows [begin, end) in one or two runs, those that have a step before and those that begin.
template <class Use>
inline void each_run_seen(const Recurrence& r, int64_t t, int64_t begin, int64_t end, Use use) {
  if (r.seen) return use(begin, end, r.seen + ((t & 1) * r.B + begin) * r.seen_step, r.seen_step);
  const int64_t s = r.reverse ? t + 1 : t - 1, going = s >= 0 && s < r.T ? smaller(end, r.rows(s)) : 0;
  if (begin < going) use(begin, going, r.y + (r.start(s) + begin) * r.y_step, r.y_step);
  const int64_t from = going > begin ? going : begin;
  if (from < end) use(from, end, r.h_0 + from * r.U, r.U);
}

void normalise_rows(int64_t rows, int64_t numbers, bool grouped, const float* x, const float* gain, const float* bias, float* gates,
    float* moments) {
  const int64_t border = grouped ? numbers / 3 * 2 : numbers;
  for (int64_t row = 0; row < rows; ++row, x += numbers, gates += numbers, moments += 4) {
    for (int64_t group = 0, from = 0, to = border; from < numbers; ++group, from = to, to = numbers) {
      float* m = moments + 2 * group;
      moments_of(x + from, to - from, m);
      for (int64_t u = from; u < to; u += kLanes) {
        const Floats normal = (load_most(x + u, to - u) - m[0]) * m[1] * load_most(gain + u, to - u);
        put_most(gates + u, bias ? normal + load_most(bias + u, to - u) : normal, to - u);
      }
    }
  }
}

// Steps [from, to) of the rows [begin, end): the input's part of the gates. Rows of many steps lie together where they are all rows.
void drive_forward(const Recurrence& r, int64_t from, int64_t to, int64_t begin, int64_t end, int64_t first, int64_t last, float* x_seen) {
  const int64_t G = r.gate_count() * r.U, unit = r.panels.first(first) * kLanes, beyond = smaller(r.panels.first(last) * kLanes, r.U);
  const bool together = begin == 0 && end >= r.B;
  constexpr int64_t kTogether = 48;
  float* sums = r.raw ? r.raw : r.gates;
  const auto rows = [&](int64_t n, int64_t count) {
    const float* x = r.x + n * r.D;
    int64_t x_step = r.D;
    if (kInCell > 1 && r.packed) {
      as_cells(count, r.D, x, r.D, nullptr, x_seen, r.drive_panels.cells);
      x = x_seen, x_step = r.drive_panels.cells;
    }
    const bool biased = r.bias && !r.raw;
    for (int64_t row = n; (biased || !r.packed) && row < n + count; ++row) {
      for (int64_t gate = 0; gate < r.gate_count(); ++gate) {
        for (int64_t u = unit; u < beyond; u += kLanes) {
          put_most(sums + row * G + gate * r.U + u, biased ? load_most(r.bias + gate * r.U + u, beyond - u) : Floats{}, beyond - u);
        }
      }
    }
    for (int64_t gate = 0; !r.packed && gate < r.gate_count(); ++gate) {
      direct_product(r.weight_ih, r.D, gate * r.U + unit, gate * r.U + beyond, count, x, x_step, sums + n * G, G);
    }
    for (int64_t panel = first; r.packed && panel < last; ++panel) {
      for (int64_t gate = 0; gate < r.gate_count(); ++gate) {
        panel_product(r.drive_panels, panel, gate, r.drive_packed, count, x, x_step, sums + n * G + gate * r.U, G, !biased);
      }
    }
    if (r.raw) {
      normalise_rows(count, G, r.kind == CellKind::gru, r.raw + n * G, r.norm_ih, r.bias, r.gates + n * G, r.raw_moments + 4 * n);
    }
  };
  if (together) {
    const int64_t last_row = r.start(to);
    for (int64_t n = r.start(from); n < last_row; n += kTogether) rows(n, smaller(kTogether, last_row - n));
    return;
  }
  for (int64_t t = from; t < to; ++t) {
    const int64_t here = smaller(end, r.rows(t));
    for (int64_t row = begin; row < here; row += kTogether) rows(r.start(t) + row, smaller(kTogether, here - row));
  }
}

void step_forward(const Recurrence& r, int64_t t, int64_t begin, int64_t end, int64_t first, int64_t last) {
  end = smaller(end, r.rows(t));
  if (begin >= end) return;
  const int64_t G = r.gate_count() * r.U, unit = r.panels.first(first) * kLanes, beyond = smaller(r.panels.first(last) * kLanes, r.U);
  const bool apart = r.kind == CellKind::gru && !r.product;  // q is a product of its own
  if (apart) {
    for (int64_t row = begin; row < end; ++row) {
      float* q = r.q + (r.start(t) + row) * r.U;
      for (int64_t u = unit; u < beyond; u += kLanes) put_most(q + u, r.bias_n ? load_most(r.bias_n + u, beyond - u) : Floats{}, beyond - u);
    }
  }
  each_run_seen(r, t, begin, end, [&](int64_t from, int64_t to, const float* seen, int64_t seen_step) {
    const int64_t n = r.start(t) + from;
    float* sums = (r.product ? r.product : r.gates) + n * G;
    for (int64_t gate = 0; !r.packed && gate < r.gate_count(); ++gate) {
      const int64_t row = gate * r.U, rows = to - from;
      if (apart && gate == 2) {
        direct_product(r.weight_hh + row * r.U, r.U, unit, beyond, rows, seen, seen_step, r.q + n * r.U, r.U);
        continue;
      }
      for (int64_t k = 0; r.product && k < rows; ++k) {
        for (int64_t u = unit; u < beyond; u += kLanes) put_most(sums + k * G + row + u, Floats{}, beyond - u);
      }
      direct_product(r.weight_hh, r.U, row + unit, row + beyond, rows, seen, seen_step, sums, G);
    }
    for (int64_t panel = first; r.packed && panel < last; ++panel) {
      for (int64_t gate = 0; gate < r.gate_count(); ++gate) {
        const bool own = apart && gate == 2;
        panel_product(r.panels, panel, gate, r.packed, to - from, seen, seen_step, own ? r.q + n * r.U : sums + gate * r.U,
            own ? r.U : G, r.product != nullptr);
      }
    }
  });
  for (int64_t row = begin; row < end; ++row) {
    const Units at(r, t, row, unit, beyond);
    if (r.product) {
      float* moments = r.moments + at.n * 4;
      const float* product = r.product + at.n * G;
      const int64_t together = r.kind == CellKind::gru ? 2 * r.U : G;
      moments_of(product, together, moments);
      if (r.kind == CellKind::gru) moments_of(product + together, r.U, moments + 2);
    }
    switch (r.kind) {
      case CellKind::tanh: rnn_forward(at, false); break;
      case CellKind::relu: rnn_forward(at, true); break;
      case CellKind::gru: gru_forward(at); break;
      case CellKind::lstm: lstm_forward<false>(at); break;
      case CellKind::coupled: lstm_forward<true>(at); break;
    }
  }
}

// Backward of a run of units of one row of one step.
struct UnitsBack : Units {
  const RecurrenceBack& b;
  float *da, *dp, *dh, *dc;
  const float* dy;
  int64_t member;
  UnitsBack(const Recurrence& r, const RecurrenceBack& b, int64_t t, int64_t row, int64_t begin, int64_t end, int64_t member)
      : Units(r, t, row, begin, end), b(b), da(b.da + (n - b.origin) * r.gate_count() * r.U), dp(b.dp + (n - b.origin) * r.gate_count() * r.U),
        dh(b.dh + row * r.U), dc(b.dc ? b.dc + row * r.U : nullptr), dy(b.dy + n * b.dy_step), member(member) {}

  // dh of the new value; `old` is what goes straight to the state before.
  Floats asked(int64_t u, Floats& old) const {
    const int64_t left = end - u;
    Floats d = load_most(dh + u, left) + load_most(dy + u, left);
    old = r.zone_h || r.keep_h != 0.0f ? shared(r.zone_h, r.keep_h, n * r.U + u, left, d) : Floats{};
    return d;
  }
  void give(int64_t gate, int64_t u, Floats d) const { put_most(da + gate * r.U + u, d, end - u); }
  void give_product(int64_t gate, int64_t u, Floats d) const { put_most(dp + gate * r.U + u, d, end - u); }
};

inline void rnn_backward(const UnitsBack& row, bool relu) {
  for (int64_t u = row.begin; u < row.end; u += kLanes) {
    Floats old;
    const Floats d = row.asked(u, old), h = row.gate(0, u);
    row.give(0, u, relu ? (h > 0.0f ? d : h == h ? Floats{} : d) : d * (1.0f - h * h));
    put_most(row.dh + u, old, row.end - u);
  }
}

inline void gru_backward(const UnitsBack& row) {
  for (int64_t u = row.begin; u < row.end; u += kLanes) {
    const int64_t left = row.end - u;
    Floats old;
    const Floats d = row.asked(u, old), reset = row.gate(0, u), z = row.gate(1, u), n = row.gate(2, u);
    const Floats da_n = d * (1.0f - z) * (1.0f - n * n);
    row.give(0, u, da_n * gru_q(row, u) * reset * (1.0f - reset));
    row.give(1, u, d * (load_most(row.before.h + u, left) - n) * z * (1.0f - z));
    row.give(2, u, da_n);
    row.give_product(2, u, da_n * reset);  // the others are copied: give_rest
    put_most(row.dh + u, old + d * z, left);
  }
}

template <bool coupled>
inline void lstm_backward(const UnitsBack& row) {
  constexpr int64_t g_at = coupled ? 1 : 2, o_at = coupled ? 2 : 3;
  const Recurrence& r = row.r;
  const RecurrenceBack& b = row.b;
  const float* raw = (r.c_raw ? r.c_raw : r.c) + row.n * r.U;
  const float* p_o = r.peephole ? r.peephole + (coupled ? 1 : 2) * r.U : nullptr;
  float* dpeephole = b.dpeephole ? b.dpeephole + row.member * 3 * r.U : nullptr;
  float* dm_row = b.through + row.row * r.U;  // free until the product
  const float* moments = r.norm_c ? r.cell_moments + 2 * row.n : nullptr;
  Floats sum{}, along{};
  for (int64_t u = row.begin; r.norm_c && u < row.end; u += kLanes) {
    const int64_t left = row.end - u;
    Floats old;
    const Floats d = row.asked(u, old), o = row.gate(o_at, u), gain = load_most(r.norm_c + u, left);
    const Floats standard = keep_first((load_most(raw + u, left) - moments[0]) * moments[1], left);
    const Floats y = tangent(standard * gain + load_most(r.norm_c_bias + u, left)), dnormal = d * o * (1.0f - y * y);
    row.give(o_at, u, d * y * o * (1.0f - o));
    put_most(row.dh + u, old, left);
    add_to(b.dnorm_c + row.member * r.U + u, dnormal * standard, left);
    add_to(b.dnorm_c_bias + row.member * r.U + u, dnormal, left);
    const Floats dstandard = keep_first(dnormal * gain, left);
    sum = sum + dstandard;
    along = along + dstandard * standard;
    put_most(dm_row + u, dstandard, left);
  }
  const float mean = r.norm_c ? total(sum) / r.U : 0.0f, slope = r.norm_c ? total(along) / r.U : 0.0f;
  for (int64_t u = row.begin; u < row.end; u += kLanes) {
    const int64_t left = row.end - u;
    const Floats i = row.gate(0, u), g = row.gate(g_at, u), o = row.gate(o_at, u), c = load_most(raw + u, left);
    const Floats c_before = load_most(row.before.c + u, left);
    Floats dc = load_most(row.dc + u, left);
    Floats old_c = r.c_raw ? shared(r.zone_c, r.keep_c, row.n * r.U + u, left, dc) : Floats{};
    Floats da_o;
    if (r.norm_c) {
      da_o = load_most(row.da + o_at * r.U + u, left);
      dc = dc + moments[1] * (load_most(dm_row + u, left) - mean - (c - moments[0]) * moments[1] * slope);
    } else {
      Floats old;
      const Floats d = row.asked(u, old), y = tangent(c);
      put_most(row.dh + u, old, left);
      da_o = d * y * o * (1.0f - o);
      dc = dc + d * o * (1.0f - y * y);
    }
    if (p_o) {
      dc = dc + da_o * load_most(p_o + u, left);
      add_to(dpeephole + (coupled ? 1 : 2) * r.U + u, da_o * c, left);
    }
    Floats dc_before;
    const Floats da_i = dc * (coupled ? g - c_before : g) * i * (1.0f - i);
    if constexpr (coupled) {
      dc_before = dc * (1.0f - i);
    } else {
      const Floats f = row.gate(1, u), da_f = dc * c_before * f * (1.0f - f);
      dc_before = dc * f;
      row.give(1, u, da_f);
      if (r.peephole) {
        dc_before = dc_before + da_f * load_most(r.peephole + r.U + u, left);
        add_to(dpeephole + r.U + u, da_f * c_before, left);
      }
    }
    if (r.peephole) {
      dc_before = dc_before + da_i * load_most(r.peephole + u, left);
      add_to(dpeephole + u, da_i * c_before, left);
    }
    row.give(0, u, da_i);
    row.give(g_at, u, dc * i * (1.0f - g * g));
    row.give(o_at, u, da_o);
    put_most(row.dc + u, old_c + dc_before, left);
  }
}

// dx = (d - mean d - x^ mean(d x^)) / deviation with d = dy gain, x^ = (x - mean) / deviation; `from` may be `to`.
inline void norm_group_back(int64_t numbers, const float* x, const float* gain, const float* moments, const float* from, float* to,
    float* dgain) {
  Floats sum{}, along{};
  for (int64_t u = 0; u < numbers; u += kLanes) {
    const int64_t left = numbers - u;
    const Floats standard = (load_most(x + u, left) - moments[0]) * moments[1], dnormal = load_most(from + u, left);
    add_to(dgain + u, dnormal * standard, left);
    const Floats d = keep_first(dnormal * load_most(gain + u, left), left);
    sum = sum + d;
    along = along + d * standard;
    put_most(to + u, d, left);
  }
  const float mean = total(sum) / numbers, slope = total(along) / numbers;
  for (int64_t u = 0; u < numbers; u += kLanes) {
    const int64_t left = numbers - u;
    const Floats standard = (load_most(x + u, left) - moments[0]) * moments[1];
    put_most(to + u, moments[1] * (load_most(to + u, left) - mean - standard * slope), left);
  }
}

void gates_backward(const Recurrence& r, const RecurrenceBack& b, int64_t t, int64_t begin, int64_t end, int64_t first, int64_t last,
    int64_t member) {
  end = smaller(end, r.rows(t));
  const int64_t unit = b.panels.first(first) * kLanes, beyond = smaller(b.panels.first(last) * kLanes, r.U);
  for (int64_t number = begin; number < end; ++number) {
    const UnitsBack row(r, b, t, number, unit, beyond, member);
    switch (r.kind) {
      case CellKind::tanh: rnn_backward(row, false); break;
      case CellKind::relu: rnn_backward(row, true); break;
      case CellKind::gru: gru_backward(row); break;
      case CellKind::lstm: lstm_backward<false>(row); break;
      case CellKind::coupled: lstm_backward<true>(row); break;
    }
    if (r.product) {
      const int64_t G = r.gate_count() * r.U, border = r.kind == CellKind::gru ? 2 * r.U : G;
      const float *product = r.product + row.n * G, *moments = r.moments + 4 * row.n;
      float* dgain = b.dnorm_hh + member * G;
      norm_group_back(border, product, r.norm_hh, moments, row.da, row.dp, dgain);
      if (border < G) norm_group_back(G - border, product + border, r.norm_hh + border, moments + 2, row.dp + border, row.dp + border, dgain + border);
    } else if (row.dp != row.da) {
      for (int64_t gate = 0; gate < 2; ++gate) {  // GRU
        for (int64_t u = unit; u < beyond; u += kLanes) row.give_product(gate, u, load_most(row.da + gate * r.U + u, beyond - u));
      }
    }
    float* seen = b.seen + (row.n - b.origin) * r.U;
    for (int64_t u = unit; b.seen && u < beyond; u += kLanes) {
      const Floats h = load_most(row.before.h + u, beyond - u);
      put_most(seen + u, r.mask ? h * load_most(r.mask + number * r.U + u, beyond - u) : h, beyond - u);
    }
    if (!b.dp_seen) continue;
    const int64_t block = (r.U + kInCell - 1) / kInCell;  // cells of one gate
    for (int64_t gate = 0; gate < r.gate_count(); ++gate) {
      float* cells = b.dp_seen + number * b.dp_seen_step + gate * block;
      for (int64_t u = unit; u < beyond; u += kLanes) store_cells(load_most(row.dp + gate * r.U + u, beyond - u), cells, u, beyond - u);
    }
  }
}

void state_backward(const Recurrence& r, const RecurrenceBack& b, int64_t t, int64_t begin, int64_t end, int64_t first, int64_t last) {
  end = smaller(end, r.rows(t));
  if (begin >= end) return;
  const int64_t G = r.gate_count() * r.U, unit = b.panels.first(first) * kLanes, beyond = smaller(b.panels.first(last) * kLanes, r.U);
  const float* d = b.dp_seen ? b.dp_seen + begin * b.dp_seen_step : b.dp + (r.start(t) + begin - b.origin) * G;
  const int64_t d_step = b.dp_seen ? b.dp_seen_step : G;
  float* to = (r.mask ? b.through : b.dh) + begin * r.U;
  for (int64_t panel = first; panel < last; ++panel) {
    panel_product(b.panels, panel, 0, b.packed, end - begin, d, d_step, to, r.U, r.mask != nullptr);
  }
  for (int64_t row = begin; r.mask && row < end; ++row) {
    for (int64_t u = unit; u < beyond; u += kLanes) {
      const int64_t at = row * r.U + u;
      add_to(b.dh + at, load_most(b.through + at, beyond - u) * load_most(r.mask + at, beyond - u), beyond - u);
    }
  }
}

void normalise_rows_back(int64_t rows, int64_t numbers, bool grouped, const float* x, const float* gain, const float* moments, float* d,
    float* dgain) {
  const int64_t border = grouped ? numbers / 3 * 2 : numbers;
  for (int64_t row = 0; row < rows; ++row, x += numbers, d += numbers, moments += 4) {
    norm_group_back(border, x, gain, moments, d, d, dgain);
    if (grouped) norm_group_back(numbers - border, x + border, gain + border, moments + 2, d + border, d + border, dgain + border);
  }
}

const RecurrenceKernels recurrence_kernels{kLanes, kInCell, panels_of, packed_size, pack_panels, packed_product, outer_scratch, outer,
    add_up, drive_forward, as_cells, normalise_rows,
    normalise_rows_back, step_forward, gates_backward, state_backward};

}  // namespace TWOFOLD_SET
}  // namespace twofold
