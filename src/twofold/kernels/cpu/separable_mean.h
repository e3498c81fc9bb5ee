// The weighted mean of weighted_mean.h where windows are large: one axis after the other, kh + kw products instead of kh kw.

namespace twofold {
namespace TWOFOLD_SET {
namespace separable_mean {

// line[w] = sum_i gh[i] x[h + i dh, w] over the taps inside the map
inline void add_rows(const Window& w, const Mean& mean, const float* x, int64_t h, float* line) {
  const Range taps = inside(h, w.kh, w.dh, w.H);
  for (int64_t v = 0; v < w.W; v += kLanes) {
    Floats sum{};
    for (int64_t i = taps.begin; i < taps.end; ++i) {
      sum += mean.gh[i] * load_most(x + (h + i * w.dh) * w.W + v, w.W - v);
    }
    store(line + v, sum);
  }
}

// The frame is that of a single row.
void forward(const Window& w, const MapFrame& frame, const Mean& mean, Rows rows, const float* x, float* y, float* scratch) {
  float* line = scratch + frame.horizontal.count * frame.pitch + kOverrun;
  const float* end = y + (rows.first + rows.count) * w.Q;
  for (int64_t p = rows.first; p < rows.first + rows.count; ++p) {
    add_rows(w, mean, x, p * w.sh - w.top, line);
    for (int64_t b = 0; b < frame.horizontal.count; ++b) {
      deal(line, Line(w.W, frame.horizontal.phase[b] - w.left, w.sw, frame.pitch), scratch + b * frame.pitch);
    }
    for (int64_t q = 0; q < w.Q; q += kLanes) {
      Floats sum{};
      for (int64_t j = 0; j < w.kw; ++j) sum += mean.gw[j] * load(scratch + frame.offset[j] + q);
      put(y + p * w.Q + q, sum / (mean.nh[p] * load(mean.nw + q)), end);
    }
  }
}

// What the pixels of a row receive, for gather.
struct ColumnTerm {
  const float *from, *gw;

  template <int R>
  void begin(const Pixels&) {}
  template <int R>
  void add(const PixelTaps& taps, int64_t cell, int64_t, int64_t, Floats* d) const {
    taps.each([&](int64_t offset, int64_t tap) { *d += gw[tap] * load(from + cell + offset); });
  }
};

constexpr int64_t kOneTap[] = {0, 1};

// to[w] = sum of gw[j] dy[q] / (nh nw[q]) over the windows q that see w; frame: room for them with nothing on either side.
inline void spread_columns(const Window& w, const WindowFrame& frame, const Mean& mean, float nh, const float* dy, float* from, float* to) {
  float *line = from + frame.pitch + kOverrun, *lines = line + w.Q + kOverrun;
  for (int64_t q = 0; q < w.Q; q += kLanes) {
    store(line + q, load_most(dy + q, w.Q - q) / (nh * load(mean.nw + q)));
  }
  deal(line, Line(w.Q, -frame.aside, 1, frame.pitch), from);
  const Window row{1, w.W, 1, w.Q, 1, w.kw, 1, w.sw, 0, w.left, 1, w.dw};
  const WindowFrame seen{{kOneTap, kOneTap, kOneTap}, frame.horizontal, 0, frame.aside, frame.pitch};
  gather(row, seen, {0, 1}, ColumnTerm{from, mean.gw}, to, lines);
}

void backward(const Window& w, const WindowFrame& frame, const Mean& mean, Rows rows, const float* dy, float* dx, float* scratch) {
  const int64_t slots = frame.up + 1, line = w.W + kOverrun;  // rows of windows that a pixel may be seen by, each kept in its slot
  float* from = scratch + slots * line;
  const float* end = dx + (rows.first + rows.count) * w.W;
  int64_t next = most(0, (rows.first + w.top) / w.sh - frame.up);
  for (int64_t h = rows.first; h < rows.first + rows.count; ++h) {
    const int64_t u = (h + w.top) / w.sh, r = h % w.sh;
    for (; next <= least(u, w.P - 1); ++next) {
      spread_columns(w, frame, mean, mean.nh[next], dy + next * w.Q, from, scratch + next % slots * line);
    }
    for (int64_t v = 0; v < w.W; v += kLanes) {
      Floats sum{};
      for (int64_t i = frame.vertical.begin[r]; i < frame.vertical.begin[r + 1]; ++i) {
        const int64_t p = u - frame.up + frame.vertical.back[i];
        if (p >= 0 && p < w.P) sum += mean.gh[frame.vertical.tap[i]] * load(scratch + p % slots * line + v);
      }
      put(dx + h * w.W + v, sum, end);
    }
  }
}

}  // namespace separable_mean
}  // namespace TWOFOLD_SET
}  // namespace twofold
