// Frames (pools_table.h): rows of maps dealt into phases, and interleaved again.

namespace twofold {
namespace TWOFOLD_SET {

inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

inline void clear_lanes(float* to, int64_t count) {
  for (int64_t n = 0; n < count; n += kLanes) store(to + n, Floats{});
}

// The numbers row[start + v step], v = 0, 1, ... count - 1: those with begin <= v < end lie inside the row.
struct Line {
  int64_t start, step, count, begin, end;
  Line(int64_t size, int64_t start, int64_t step, int64_t count) : start(start), step(step), count(count) {
    begin = start >= 0 ? 0 : least(count, (-start + step - 1) / step);
    end = start >= size ? begin : most(begin, least(count, (size - 1 - start) / step + 1));
  }
};

// The line, 0 where it is outside the row. Whole lanes are written: what one spills the next must overwrite.
inline void deal(const float* row, const Line& line, float* to) {
  clear_lanes(to, line.begin);
  int64_t v = line.begin;
  const float* from = row + line.start;
  if (line.step == 1) {
    for (; v < line.end; v += kLanes) store(to + v, load_most(from + v, line.end - v));
  } else if (line.step == 2) {
    for (; v < line.end; v += kLanes) store(to + v, load_every_other(from + 2 * v, line.end - v));
  } else {
    for (; v < line.end; ++v) to[v] = from[v * line.step];
  }
  clear_lanes(to + v, line.count - v);
}

// Numbers that are to lie `step` apart, from a line of them.
inline void interleave(const float* line, int64_t count, int64_t step, float* to) {
  for (int64_t v = 0; v < count; ++v) to[v * step] = line[v];
}

// Two lines, turn by turn; see put.
inline void interleave_two(const float* even, const float* odd, int64_t size, float* to, const float* end) {
  for (int64_t v = 0; 2 * v < size; v += kLanes) {
    Floats low, high;
    merge(load(even + v), load(odd + v), low, high);
    put(to + 2 * v, low, end);
    if (2 * v + kLanes < size) put(to + 2 * v + kLanes, high, end);
  }
}

// What windows of the given rows see of x.
inline void fill_map_frame(const Window& w, const MapFrame& frame, Rows rows, const float* x, float* to) {
  const int64_t row_step = frame.plain ? 1 : w.sh, step = frame.plain ? 1 : w.sw;
  const int64_t count = (rows.count - 1) * (w.sh / row_step) + 1 + frame.beyond;
  for (int64_t a = 0; a < frame.vertical.count; ++a) {
    for (int64_t b = 0; b < frame.horizontal.count; ++b, to += frame.rows * frame.pitch) {
      const Line line(w.W, frame.horizontal.phase[b] - w.left, step, frame.pitch);
      int64_t h = rows.first * w.sh + frame.vertical.phase[a] - w.top;
      float* at = to;
      for (int64_t u = 0; u < count; ++u, h += row_step, at += frame.pitch) {
        if (h < 0 || h >= w.H) {
          clear_lanes(at, frame.pitch);
        } else {
          deal(x + h * w.W, line, at);
        }
      }
    }
  }
}

// The first cell and the number of cells of some rows of pixels.
inline Rows cells_of(const Window& w, Rows pixels) {
  const int64_t first = (pixels.first + w.top) / w.sh;
  return {first, (pixels.first + pixels.count - 1 + w.top) / w.sh - first + 1};
}

// The windows that see the given rows of pixels: `values` of each, 0 where there is none. Returns the end.
inline float* fill_window_frame(const Window& w, const WindowFrame& frame, Rows pixels, const float* values, float* to) {
  const Rows cells = cells_of(w, pixels);
  const Line line(w.Q, -frame.aside, 1, frame.pitch);
  for (int64_t u = 0; u < cells.count + frame.up; ++u, to += frame.pitch) {
    const int64_t p = cells.first + u - frame.up;
    if (p < 0 || p >= w.P) {
      clear_lanes(to, frame.pitch);
    } else {
      deal(values + p * w.Q, line, to);
    }
  }
  return to;
}

// The taps that see a pixel: those of its row's residue by those of its column's.
struct PixelTaps {
  const Residues &vertical, &horizontal;
  int64_t row, column, pitch, kw;

  // Calls see(where in the frame of windows, the tap's number), the last tap first.
  template <class See>
  void each(See see) const {
    for (int64_t i = vertical.begin[row]; i < vertical.begin[row + 1]; ++i) {
      for (int64_t j = horizontal.begin[column]; j < horizontal.begin[column + 1]; ++j) {
        see(vertical.back[i] * pitch + horizontal.back[j], vertical.tap[i] * kw + horizontal.tap[j]);
      }
    }
  }
};

constexpr int kTogether = 4;  // rows that are computed together

// A block of pixels of one residue: in R rows, `step` apart, those of a line, `step` of its own apart.
struct Pixels {
  int64_t row, row_step, column, column_step, count;
};

// R rows of dx for gather. A row may spill into the next of these rows, if that is its neighbour, but not beyond.
template <int R, class Term>
inline void gather_rows(const Window& w, const WindowFrame& frame, Term& term, int64_t h, int64_t cells, float* dx, float* lines) {
  const int64_t longest = (w.W + w.sw - 1) / w.sw, room = longest + kOverrun;
  float* row = dx + h * w.W;
  const auto end = [&](int o) { return row + (w.sh == 1 ? R * w.W : (o * w.sh + 1) * w.W); };
  int64_t v = w.left / w.sw, phase = w.left % w.sw;
  for (int64_t c = 0; c < least(w.sw, w.W); ++c) {
    const PixelTaps taps{frame.vertical, frame.horizontal, h % w.sh, c, frame.pitch, w.kw};
    const int64_t count = longest - (w.W - 1 < (longest - 1) * w.sw + c);
    term.template begin<R>({h, w.sh, c, w.sw, count});
    for (int64_t k = (count - 1) / kLanes * kLanes; k >= 0; k -= kLanes) {  // from the right: see put
      Floats d[R];
      for (int o = 0; o < R; ++o) d[o] = Floats{};
      term.template add<R>(taps, cells + v + k, frame.pitch, k, d);
      for (int o = 0; o < R; ++o) {
        if (w.sw == 1) {
          put(row + o * w.sh * w.W + k, d[o], end(o));
        } else {
          store(lines + (2 * o + (w.sw == 2 && c)) * room + k, d[o]);
        }
      }
    }
    for (int o = 0; o < R && w.sw > 2; ++o) interleave(lines + 2 * o * room, count, w.sw, row + o * w.sh * w.W + c);
    if (++phase == w.sw) {
      phase = 0;
      ++v;
    }
  }
  for (int o = 0; o < R && w.sw == 2; ++o) {
    interleave_two(lines + 2 * o * room, lines + (2 * o + 1) * room, w.W, row + o * w.sh * w.W, end(o));
  }
}

// dx of the given rows, each pixel from the windows that see it. term.begin(pixels) announces R lines; term.add(taps, the cell's place in
// the frame, pitch, k, d) adds to d[o] what the pixels k, k + 1, ... of line o receive. lines: room for 2 kTogether of them.
template <class Term>
inline void gather(const Window& w, const WindowFrame& frame, Rows rows, Term term, float* dx, float* lines) {
  const int64_t first = cells_of(w, rows).first;
  for (int64_t at = 0; at < least(w.sh, rows.count); ++at) {
    const int64_t h = rows.first + at, count = (rows.count - at + w.sh - 1) / w.sh, cells = ((h + w.top) / w.sh - first) * frame.pitch;
    if (count < kTogether) {
      for (int64_t n = 0; n < count; ++n) gather_rows<1>(w, frame, term, h + n * w.sh, cells + n * frame.pitch, dx, lines);
      continue;
    }
    for (int64_t from = 0; from < count; from += kTogether) {
      const int64_t n = least(from, count - kTogether);  // the last rows are moved up; those computed twice are the same
      gather_rows<kTogether>(w, frame, term, h + n * w.sh, cells + n * frame.pitch, dx, lines);
    }
  }
}

}  // namespace TWOFOLD_SET
}  // namespace twofold
