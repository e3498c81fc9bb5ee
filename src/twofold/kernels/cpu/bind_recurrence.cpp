// A recurrent layer over all its steps, in one parallel region: the products with the inputs, some steps at a time so that what they leave is
// still in a cache when the steps take it up; the steps (recurrence.h); and, backwards, the gradients of weights and inputs, chunk by chunk.
//
// Threads share the rows of the batch where there are enough: each walks alone through all steps. Where rows are few they share the units
// and meet after every step (team.h).
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "held_memory.h"
#include "recurrence_layer.h"
#include "team.h"

namespace twofold {
namespace {

constexpr int64_t kFewRows = 4;      // rows a thread, below which sharing units is the better way
constexpr int64_t kWorth = 1 << 20;  // multiply-adds that are worth a second thread
constexpr int64_t kWorthRead = 1 << 17;  // the same where each weight is read for a product or four
constexpr int64_t kAhead = 1 << 16;  // gates of a member's rows that are prepared for the next steps
constexpr int64_t kFewUses = 4;      // rows of all steps, for which weights are not packed
constexpr int64_t kTogether = 48;  // rows of a product
constexpr int64_t kChunk = 1 << 20;  // numbers of gates' gradients that are worked up together, while a cache still holds them

const RecurrenceKernels& kernels_for(const Layer& layer) {
#if TWOFOLD_BF16
  if (layer.reduced) {
    TORCH_CHECK_VALUE(std::string(kernels().instruction_set) == "avx512" && __builtin_cpu_supports("avx512bf16"),
        "recurrence: products of bfloat16 need a processor with AVX512_BF16");
    return avx512bf16_recurrence();
  }
#endif
  TORCH_CHECK_VALUE(!layer.reduced, "recurrence: products of bfloat16 need a processor with AVX512_BF16");
  return kernels().recurrence;
}

float* floats(const at::Tensor& x) { return x.defined() && x.numel() ? x.mutable_data_ptr<float>() : nullptr; }
const float* numbers(const at::Tensor& x) { return x.defined() ? x.const_data_ptr<float>() : nullptr; }

// Who does what: members, and whether they share units rather than rows.
struct Plan {
  int64_t members;
  bool units;
  Plan(const Layer& layer, const Panels& panels, bool whole_rows, bool direct = false) : members(1), units(false) {
    const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads(), weights = layer.gates() * layer.U * (layer.U + layer.D);
    const int64_t work = layer.all_rows() * weights * layer.directions;
    const int64_t worth = direct ? kWorthRead : kWorth;
    if (threads < 2 || work < 2 * worth) return;
    const int64_t wanted = std::min(threads, work / worth), pieces = layer.directions * layer.B;
    const bool step_worth = layer.directions * layer.B * weights > 1 << 14;  // what lies between two meetings
    units = !whole_rows && panels.count > 1 && step_worth && pieces < wanted * kFewRows;
    members = std::min(wanted, units ? panels.count : pieces);
  }
};

// Weights to be packed, by all members together.
struct Packing {
  Panels panels;
  const float* weight;
  int64_t by_row, by_column;
  float* to;
  void share(const RecurrenceKernels& k, int64_t member, int64_t members) const {
    k.pack(panels, weight, by_row, by_column, to, member * panels.count / members, (member + 1) * panels.count / members);
  }
};

// The rows of the directions in equal shares: member m's are [begin, end) of direction s.
template <class Use>
void share_rows(const Layer& layer, int64_t member, int64_t members, Use use) {
  const int64_t all = layer.directions * layer.B;
  const int64_t from = member * all / members, to = (member + 1) * all / members;
  for (int64_t s = 0; s < layer.directions; ++s) {
    const int64_t begin = std::max(from - s * layer.B, int64_t{0}), end = std::min(to - s * layer.B, layer.B);
    if (begin < end) use(s, begin, end);
  }
}

int64_t step_at(const Recurrence& r, int64_t k) { return r.reverse ? r.T - 1 - k : k; }

at::Tensor total_bias(const Layer& layer, const at::Tensor* w) {
  const at::Tensor &input = w[kInputBias], &state = w[kStateBias];
  if (!input.defined() || !state.defined()) return input;
  if (layer.kind != CellKind::gru) return input + state;
  at::Tensor bias = input.clone();  // the last third stays inside of r (...)
  bias.narrow(0, 0, 2 * layer.U).add_(state.narrow(0, 0, 2 * layer.U));
  return bias;
}

// The description that the kernels read, of one direction.
Recurrence describe(const Layer& layer, int64_t s, const Tensors& state, const at::Tensor* w, const at::Tensor* noise, const at::Tensor* kept,
    const at::Tensor& y) {
  Recurrence r{};
  r.kind = layer.kind, r.T = layer.T, r.B = layer.B, r.U = layer.U;
  r.starts = layer.starts();
  r.reverse = s == 1;
  r.gates = floats(kept[kGates]);
  r.y = floats(y) + s * layer.U;
  r.y_step = layer.directions * layer.U;
  r.c = floats(kept[kCell]), r.c_raw = floats(kept[kRawCell]), r.q = floats(kept[kQ]), r.product = floats(kept[kProduct]);
  r.moments = floats(kept[kMoments]), r.cell_moments = floats(kept[kCellMoments]);
  r.h_0 = numbers(state[0]) + s * layer.B * layer.U;
  r.c_0 = layer.has_cell() ? numbers(state[1]) + s * layer.B * layer.U : nullptr;
  r.bias_n = layer.kind == CellKind::gru && w[kStateBias].defined() ? numbers(w[kStateBias]) + 2 * layer.U : nullptr;
  r.peephole = numbers(w[kPeephole]);
  r.norm_hh = numbers(w[kStateNorm]), r.norm_c = numbers(w[kCellNorm]), r.norm_c_bias = numbers(w[kCellNormBias]);
  r.mask = numbers(noise[kMask]), r.zone_h = numbers(noise[kZoneH]), r.zone_c = numbers(noise[kZoneC]);
  r.keep_h = static_cast<float>(layer.keep_h), r.keep_c = static_cast<float>(layer.keep_c);
  return r;
}

// The gradient of GRU's b_hn beneath a norm: sum_rows da_n r, into the last third of `to`.
void add_reset_rows(int64_t rows, int64_t U, const float* da, const float* gates, int64_t begin, int64_t end, float* to) {
  for (int64_t m = std::max(begin, 2 * U); m < end; ++m) {
    for (int64_t row = 0; row < rows; ++row) to[m] += da[row * 3 * U + m] * gates[row * 3 * U + m - 2 * U];
  }
}

// The state of every row after its own last step, from the values after all steps.
void gather_last(const Layer& layer, int64_t s, const float* values, int64_t values_step, const float* initial, float* last) {
  const int64_t* starts = layer.starts();
  int64_t t = layer.T;
  for (int64_t row = 0; row < layer.B; ++row) {
    if (s == 1) {
      t = layer.T > 0 && row < starts[1] - starts[0] ? 1 : 0;
    } else {
      while (t > 0 && row >= starts[t] - starts[t - 1]) --t;  // rows grow shorter, never longer
    }
    const float* from = t > 0 ? values + (starts[t - 1] + row) * values_step : initial + row * layer.U;
    std::copy(from, from + layer.U, last + row * layer.U);
  }
}

}  // namespace

Result recurrence_forward(const Layer& layer, const at::Tensor& x, const Tensors& state, const Tensors& weights, const Tensors& noise) {
  const int64_t N = layer.all_rows(), U = layer.U, G = layer.gates() * U, S = layer.directions;
  const bool direct = N <= kFewUses;
  const RecurrenceKernels& k = direct ? kernels().recurrence : kernels_for(layer);
  const auto room = [&](at::IntArrayRef size) { return HeldMemory::floats(size, x.options()); };
  const auto given = [&](at::IntArrayRef size) { return at::empty(size, x.options()); };  // what the user keeps
  Result result{given({N, S * U}), {given({S, layer.B, U})}, Tensors(S * kKept)};
  if (layer.has_cell()) result.state.push_back(given({S, layer.B, U}));
  const Panels panels = k.panels(1, U, layer.gates(), U), drive_panels = k.panels(1, layer.D, layer.gates(), U);
  bool whole_rows = false;
  Tensors held;
  std::vector<Packing> packings;
  std::vector<Recurrence> all;
  for (int64_t s = 0; s < S; ++s) {
    const at::Tensor *w = &weights[s * kParts], *drawn = &noise[s * kNoises];
    at::Tensor* kept = &result.kept[s * kKept];
    const bool gru = layer.kind == CellKind::gru, normal = w[kStateNorm].defined();
    kept[kGates] = room({N, G});
    if (normal) kept[kRawInput] = room({N, G}), kept[kInputMoments] = given({N, 4}), kept[kProduct] = room({N, G}), kept[kMoments] = given({N, 4});
    if (layer.has_cell()) kept[kCell] = room({N, U});
    if (layer.has_cell() && (drawn[kZoneC].defined() || layer.keep_c != 0)) kept[kRawCell] = room({N, U});
    if (gru && !normal) kept[kQ] = room({N, U});
    if (w[kCellNorm].defined()) kept[kCellMoments] = given({N, 2});
    whole_rows = whole_rows || normal;
    Recurrence r = describe(layer, s, state, w, drawn, kept, result.y);
    const auto packed = [&](const Panels& shape, const at::Tensor& weight) {
      held.push_back(room({k.packed_size(shape)}));
      packings.push_back({shape, numbers(weight), 1, weight.size(1), floats(held.back())});
      return numbers(held.back());
    };
    r.panels = panels, r.drive_panels = drive_panels;
    r.weight_ih = numbers(w[kInputWeight]), r.weight_hh = numbers(w[kStateWeight]);
    if (!direct) r.packed = packed(panels, w[kStateWeight]), r.drive_packed = packed(drive_panels, w[kInputWeight]);
    r.x = numbers(x), r.D = layer.D;
    held.push_back(total_bias(layer, w));
    r.bias = numbers(held.back());
    r.raw = floats(kept[kRawInput]), r.raw_moments = floats(kept[kInputMoments]), r.norm_ih = numbers(w[kInputNorm]);
    if (k.deep > 1 || r.mask) {
      held.push_back(at::zeros({2, layer.B, panels.cells}, x.options()));
      r.seen = floats(held.back()), r.seen_step = panels.cells;
      for (int64_t slot = 0; slot < 2; ++slot) k.as_cells(layer.B, U, r.h_0, U, r.mask, r.seen + slot * layer.B * panels.cells, panels.cells);
    }
    all.push_back(r);
  }
  const Plan plan(layer, panels, whole_rows, direct);
  Team::run(plan.members, [&](Team& team, int64_t member) {
    for (const Packing& packing : packings) packing.share(k, member, team.size());
    if (!packings.empty()) team.wait();
    std::vector<float> x_seen(k.deep > 1 ? kTogether * drive_panels.cells : 0, 0.0f);
    const auto ahead = [&](int64_t rows, int64_t columns) { return std::max<int64_t>(1, kAhead / std::max<int64_t>(1, rows * columns)); };
    const auto prepare = [&](const Recurrence& r, int64_t step, int64_t steps, int64_t begin, int64_t end, int64_t first, int64_t last) {
      if (step % steps) return;  // steps [step, step + steps) in reading order
      const int64_t to = std::min(step + steps, layer.T);
      k.drive(r, r.reverse ? layer.T - to : step, r.reverse ? layer.T - step : to, begin, end, first, last, x_seen.data());
    };
    if (!plan.units) {
      share_rows(layer, member, team.size(), [&](int64_t s, int64_t begin, int64_t end) {
        const int64_t steps = ahead(end - begin, G);
        for (int64_t step = 0; step < layer.T; ++step) {
          prepare(all[s], step, steps, begin, end, 0, panels.count);
          k.forward(all[s], step_at(all[s], step), begin, end, 0, panels.count);
        }
      });
      return;
    }
    const int64_t first = member * panels.count / team.size(), last = (member + 1) * panels.count / team.size();
    const int64_t steps = ahead(layer.B, G / team.size());
    for (int64_t step = 0; step < layer.T; ++step) {
      for (const Recurrence& r : all) {
        prepare(r, step, steps, 0, layer.B, first, last);
        k.forward(r, step_at(r, step), 0, layer.B, first, last);
      }
      team.wait();
    }
  });
  for (int64_t s = 0; s < S; ++s) {
    gather_last(layer, s, all[s].y, all[s].y_step, all[s].h_0, floats(result.state[0]) + s * layer.B * U);
    if (layer.has_cell()) gather_last(layer, s, all[s].c, U, all[s].c_0, floats(result.state[1]) + s * layer.B * U);
  }
  return result;
}

Gradients recurrence_backward(const Layer& layer, const at::Tensor& dy, const Tensors& dstate, const at::Tensor& x, const Tensors& state,
    const at::Tensor& y, const Tensors& weights, const Tensors& noise, const Tensors& kept, bool with_x, bool with_weights) {
  const RecurrenceKernels& k = kernels_for(layer);
  const int64_t N = layer.all_rows(), U = layer.U, G = layer.gates() * U, S = layer.directions, D = layer.D;
  const auto room = [&](at::IntArrayRef size) { return HeldMemory::floats(size, x.options()); };
  const auto given = [&](at::IntArrayRef size) { return at::empty(size, x.options()); };
  const auto nothing = [&](at::IntArrayRef size) { return at::zeros(size, x.options()); };
  Gradients found{with_x ? (S == 1 ? given({N, D}) : nothing({N, D})) : at::Tensor(), {}, Tensors(S * kParts)};
  for (const at::Tensor& d : dstate) found.state.push_back(d.clone());
  const Panels panels = k.panels(layer.gates(), U, 1, U), dx_panels = k.panels(1, G, 1, D);
  const bool gru = layer.kind == CellKind::gru;
  const Plan plan(layer, panels, weights[kStateNorm].defined());
  const int64_t steps = std::clamp<int64_t>(kChunk / std::max<int64_t>(1, layer.B * G), 1, std::max<int64_t>(1, layer.T));
  struct Side {
    Recurrence r;
    RecurrenceBack b;
    Tensors held;
    at::Tensor da, dp, dpeephole, dnorm_hh, dnorm_c, dnorm_c_bias, dnorm_ih;
    const float* dx_packed;
  };
  std::vector<Side> sides(S);
  std::vector<Packing> packings;
  for (int64_t s = 0; s < S; ++s) {
    const at::Tensor* w = &weights[s * kParts];
    Side& side = sides[s];
    const auto hold = [&](at::Tensor buffer) {
      side.held.push_back(std::move(buffer));
      return floats(side.held.back());
    };
    const auto packed = [&](const Panels& shape, const at::Tensor& weight) {
      float* to = hold(room({k.packed_size(shape)}));
      packings.push_back({shape, numbers(weight), weight.size(1), 1, to});
      return to;
    };
    side.r = describe(layer, s, state, w, &noise[s * kNoises], &kept[s * kKept], y);
    side.r.x = numbers(x);
    const bool normal = w[kStateNorm].defined(), apart = gru || normal;
    side.da = room({steps * layer.B, G});
    side.dp = apart ? room({steps * layer.B, G}) : side.da;
    if (side.r.peephole) side.dpeephole = nothing({plan.members, 3 * U});
    if (normal) side.dnorm_hh = nothing({plan.members, G}), side.dnorm_ih = nothing({plan.members, G});
    if (side.r.norm_c) side.dnorm_c = nothing({plan.members, U}), side.dnorm_c_bias = nothing({plan.members, U});
    RecurrenceBack& b = side.b;
    b.panels = panels, b.packed = packed(panels, w[kStateWeight]);
    if (with_x) side.dx_packed = packed(dx_panels, w[kInputWeight]);
    b.dy = numbers(dy) + s * U, b.dy_step = S * U;
    b.da = floats(side.da), b.dp = floats(side.dp);
    if (k.deep > 1) b.dp_seen = hold(nothing({layer.B, panels.cells})), b.dp_seen_step = panels.cells;
    if (with_weights) b.seen = hold(room({steps * layer.B, U}));
    b.dh = floats(found.state[0]) + s * layer.B * U;
    b.dc = layer.has_cell() ? floats(found.state[1]) + s * layer.B * U : nullptr;
    if (side.r.mask || side.r.norm_c) b.through = hold(given({layer.B, U}));
    b.dpeephole = floats(side.dpeephole), b.dnorm_hh = floats(side.dnorm_hh);
    b.dnorm_c = floats(side.dnorm_c), b.dnorm_c_bias = floats(side.dnorm_c_bias);
    if (with_weights) {
      at::Tensor* d = &found.weights[s * kParts];
      d[kInputWeight] = nothing({G, D}), d[kStateWeight] = nothing({G, U});
      if (w[kInputBias].defined()) d[kInputBias] = nothing({G}), d[kStateBias] = nothing({G});
    }
  }
  const int64_t inner = std::max(D, U);
  Team::run(plan.members, [&](Team& team, int64_t member) {
    for (const Packing& packing : packings) packing.share(k, member, team.size());
    team.wait();
    std::vector<float> scratch(with_weights ? k.outer_scratch(inner) : 0), da_seen(k.deep > 1 ? kTogether * dx_panels.cells : 0, 0.0f);
    // Sums over rows are made in as many pieces as members were asked for: their order must not depend on how many came.
    const auto each_piece = [&](auto use) {
      for (int64_t n = member * plan.members / team.size(); n < (member + 1) * plan.members / team.size(); ++n) use(n);
    };
    const auto share = [&](int64_t all, int64_t& begin, int64_t& end) { begin = member * all / team.size(), end = (member + 1) * all / team.size(); };
    for (int64_t to = layer.T; to > 0; to -= std::min(steps, to)) {
      const int64_t from = std::max<int64_t>(0, to - steps);  // steps of this chunk, in reading order
      std::vector<RecurrenceBack> backs;
      std::vector<int64_t> counts;
      for (const Side& side : sides) {
        const int64_t low = side.r.reverse ? layer.T - to : from, origin = side.r.start(low);
        backs.push_back(side.b);
        backs.back().origin = origin;
        counts.push_back(side.r.start(low + to - from) - origin);
      }
      if (!plan.units) {
        each_piece([&](int64_t piece) {
          share_rows(layer, piece, plan.members, [&](int64_t s, int64_t begin, int64_t end) {
            for (int64_t step = to; step-- > from;) {
              const int64_t t = step_at(sides[s].r, step);
              k.backward_gates(sides[s].r, backs[s], t, begin, end, 0, panels.count, piece);
              k.backward_state(sides[s].r, backs[s], t, begin, end, 0, panels.count);
            }
          });
        });
        team.wait();
      } else {
        const int64_t first = member * panels.count / team.size(), last = (member + 1) * panels.count / team.size();
        for (int64_t step = to; step-- > from;) {
          for (int64_t s = 0; s < S; ++s) k.backward_gates(sides[s].r, backs[s], step_at(sides[s].r, step), 0, layer.B, first, last, member);
          team.wait();
          for (int64_t s = 0; s < S; ++s) k.backward_state(sides[s].r, backs[s], step_at(sides[s].r, step), 0, layer.B, first, last);
          if (k.deep > 1) team.wait();  // the rounded gradients of a step lie where those of the next will
        }
      }
      for (int64_t s = 0; s < S; ++s) {
        Side& side = sides[s];
        const at::Tensor* w = &weights[s * kParts];
        at::Tensor* d = &found.weights[s * kParts];
        const int64_t origin = backs[s].origin, count = counts[s];
        const bool normal = w[kStateNorm].defined();
        float *da = side.b.da, *dp = side.b.dp;
        int64_t begin, end;
        share(G, begin, end);
        if (with_weights && w[kInputBias].defined()) {
          k.add_up(count, da, G, begin, end, floats(d[kInputBias]));
          if (gru && !normal) k.add_up(count, dp, G, std::max(begin, 2 * U), end, floats(d[kStateBias]));
          if (gru && normal) add_reset_rows(count, U, da, numbers(kept[s * kKept + kGates]) + origin * G, begin, end, floats(d[kStateBias]));
        }
        if (with_weights) k.outer(count, dp, G, begin, end, side.b.seen, U, U, floats(d[kStateWeight]), false, scratch.data());
        int64_t top, bottom;
        share(count, top, bottom);
        if (normal) {
          team.wait();  // the biases' gradients are those before the norm
          each_piece([&](int64_t piece) {
            const int64_t row = piece * count / plan.members, next = (piece + 1) * count / plan.members;
            k.normalise_back(next - row, G, gru, numbers(kept[s * kKept + kRawInput]) + (origin + row) * G, numbers(w[kInputNorm]),
                numbers(kept[s * kKept + kInputMoments]) + (origin + row) * 4, da + row * G, floats(side.dnorm_ih) + piece * G);
          });
          team.wait();
        }
        if (with_weights) k.outer(count, da, G, begin, end, numbers(x) + origin * D, D, D, floats(d[kInputWeight]), false, scratch.data());
        for (int64_t row = top; with_x && row < bottom; row += kTogether) {
          const int64_t high = std::min(kTogether, bottom - row);
          const float* from_row = da + row * G;
          if (k.deep > 1) k.as_cells(high, G, from_row, G, nullptr, da_seen.data(), dx_panels.cells), from_row = da_seen.data();
          k.product(dx_panels, side.dx_packed, high, from_row, k.deep > 1 ? dx_panels.cells : G, floats(found.x) + (origin + row) * D, D, S == 1);
        }
        if (S > 1) team.wait();  // the other direction adds to the same dx
      }
      team.wait();
    }
  });
  for (int64_t s = 0; s < S && with_weights; ++s) {
    Side& side = sides[s];
    const at::Tensor* w = &weights[s * kParts];
    at::Tensor* d = &found.weights[s * kParts];
    if (w[kInputBias].defined()) {
      const int64_t same = gru ? 2 * U : G;
      d[kStateBias].narrow(0, 0, same).copy_(d[kInputBias].narrow(0, 0, same));
    }
    if (w[kPeephole].defined()) d[kPeephole] = side.dpeephole.sum(0).narrow(0, 0, w[kPeephole].size(0)).contiguous();
    if (w[kStateNorm].defined()) d[kStateNorm] = side.dnorm_hh.sum(0), d[kInputNorm] = side.dnorm_ih.sum(0);
    if (w[kCellNorm].defined()) d[kCellNorm] = side.dnorm_c.sum(0), d[kCellNormBias] = side.dnorm_c_bias.sum(0);
  }
  return found;
}

}  // namespace twofold
