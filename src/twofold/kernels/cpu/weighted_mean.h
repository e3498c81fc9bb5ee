// A weighted mean over windows, the weight of a tap being the product of one for its row and one for its column: average pooling,
// where all are 1, and distance-weighted (Gaussian) pooling.
//
//   forward    y[p,q] = sum_ij gh[i] gw[j] x[p sh - top + i dh, q sw - left + j dw] / (nh[p] nw[q])            padding counts as 0
//   backward   dx[h,w] = sum of gh[i] gw[j] dy[p,q] / (nh[p] nw[q]) over the windows (p,q) whose tap (i,j) lies on (h,w)
//
// Without the division this is depthwise convolution with one kernel for all maps: it is computed so.

namespace twofold {
namespace TWOFOLD_SET {
namespace weighted_mean {

struct Divide {
  const float *nh, *nw;
  Floats operator()(Floats sum, int64_t p, int64_t q) const { return sum / (nh[p] * load(nw + q)); }
};

// weight: gh[i] gw[j], row by row
void forward(const Window& w, const MapFrame& frame, const Mean& mean, const float* weight, Rows rows, const float* x, float* y,
    float* scratch) {
  fill_map_frame(w, frame, rows, x, scratch);
  const Divide divide{mean.nh + rows.first, mean.nw};
  depthwise::correlate_map(w, frame, rows, scratch, weight, 0.0f, y + rows.first * w.Q, divide);
}

void backward(const Window& w, const WindowFrame& frame, const Mean& mean, const float* weight, Rows rows, const float* dy, float* dx,
    float* scratch) {
  const Rows cells = cells_of(w, rows);
  const Divide divide{mean.nh, mean.nw};
  for (int64_t p = most(0, cells.first - frame.up); p < least(w.P, cells.first + cells.count); ++p) {
    for (int64_t q = 0; q < w.Q; q += kLanes) store(scratch + p * w.Q + q, divide(load_most(dy + p * w.Q + q, w.Q - q), p, q));
  }
  depthwise::input_gradient(w, frame, 1, rows, scratch, weight, dx, scratch + w.P * w.Q + kOverrun);
}

}  // namespace weighted_mean
}  // namespace TWOFOLD_SET
}  // namespace twofold
