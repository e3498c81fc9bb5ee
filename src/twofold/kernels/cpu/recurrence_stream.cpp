// A stack of recurrent layers, one direction, whose sequence arrives step by step: it holds the state and everything that a step needs room
// for, so that a step of few rows allocates nothing but what it returns. Weights are read as they are at each step.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "recurrence_plan.h"

namespace twofold {
namespace {

using at::Tensor;
using Maybes = c10::List<std::optional<Tensor>>;

// One layer of the stack.
struct Level {
  Layer layer;        // of one step
  Tensors weights, noise, kept, state, next;  // the state and room for that after the step, each (1, B, U)
  Tensor bias;

  Level(CellKind kind, int64_t B, int64_t D, Tensors parts, Tensors initial, double keep_h, double keep_c)
      : layer{kind, 1, B, D, initial[0].size(2), 1, keep_h, keep_c, false, RowOrder(1, B)}, weights(std::move(parts)), noise(kNoises),
        kept(kKept), state(std::move(initial)) {
    check();
    for (const Tensor& part : state) next.push_back(at::empty_like(part));
    const at::TensorOptions options = state[0].options();
    if (weights[kInputBias].defined()) bias = at::empty({layer.gates() * layer.U}, options);
    make_room(layer, weights.data(), noise.data(), kept.data(), options);
  }

  void check() const { check_weights(layer.kind, layer.D, layer.U, weights.data()); }

  // b_ih + b_hh, but for GRU's last third, which stays inside of r (...).
  void add_biases() {
    if (!bias.defined()) return;
    const float *input = numbers(weights[kInputBias]), *own = numbers(weights[kStateBias]);
    const int64_t G = layer.gates() * layer.U, together = layer.kind == CellKind::gru ? 2 * layer.U : G;
    float* sum = floats(bias);
    for (int64_t m = 0; m < G; ++m) sum[m] = m < together ? input[m] + own[m] : input[m];
  }

  // One step from x (B, D); returns h (B, U).
  const float* step(const float* x) {
    add_biases();
    const RecurrenceKernels& k = kernels().recurrence;
    const Panels panels = k.panels(1, layer.U, layer.gates(), layer.U);
    Recurrence r = describe(layer, 0, state, weights.data(), noise.data(), kept.data(), next[0]);
    r.panels = panels, r.drive_panels = k.panels(1, layer.D, layer.gates(), layer.U);
    r.x = x, r.D = layer.D, r.bias = numbers(bias);
    if (layer.has_cell()) r.c = floats(next[1]);
    r.raw = floats(kept[kRawInput]), r.raw_moments = floats(kept[kInputMoments]);
    walk(k, layer, r, {}, Plan(layer, panels, weights[kStateNorm].defined(), true));
    std::swap(state, next);
    return numbers(state[0]);
  }

  // Many steps, (T, B, D) to (T, B, U), as the layer itself takes them.
  Tensor steps(const Tensor& x) {
    const int64_t T = x.size(0), B = layer.B;
    const Layer many{layer.kind, T, B, layer.D, layer.U, 1, layer.keep_h, layer.keep_c, false, RowOrder(T, B)};
    Result result = recurrence_forward(many, x.view({T * B, layer.D}), state, weights, noise);
    state = std::move(result.state);
    return result.y.view({T, B, layer.U});
  }
};

class Stream : public torch::CustomClassHolder {
 public:
  // state: each tensor (L, B, U); weights: kParts for each layer.
  Stream(int64_t kind, const std::vector<Tensor>& state, const Maybes& weights, double keep_h, double keep_c) {
    TORCH_CHECK_VALUE(kind >= 0 && kind <= 4, "recurrence: there is no cell ", kind);
    const auto cell = static_cast<CellKind>(kind);
    const bool has_cell = cell == CellKind::lstm || cell == CellKind::coupled;
    TORCH_CHECK_VALUE(state.size() == (has_cell ? 2u : 1u) && state[0].dim() == 3 && state[0].size(0) > 0 && state[0].size(2) > 0 &&
        static_cast<int64_t>(weights.size()) == state[0].size(0) * kParts, "recurrence: state and weights do not fit the cell");
    for (const Tensor& part : state) check_floats(part, state[0].sizes(), "the state");
    const int64_t L = state[0].size(0), U = state[0].size(2);
    B_ = state[0].size(1);
    for (int64_t layer = 0; layer < L; ++layer) {
      Tensors parts, initial;
      for (int64_t part = 0; part < kParts; ++part) {
        const std::optional<Tensor> weight = weights.get(layer * kParts + part);
        parts.push_back(weight.value_or(Tensor()));
      }
      TORCH_CHECK_VALUE(parts[kInputWeight].defined() && parts[kInputWeight].dim() == 2, "recurrence: weights are missing");
      for (const Tensor& part : state) initial.push_back(part.detach().narrow(0, layer, 1).clone());
      const int64_t D = layer ? U : parts[kInputWeight].size(1);
      levels_.emplace_back(cell, B_, D, std::move(parts), std::move(initial), keep_h, keep_c);
    }
  }

  // y of the steps x: (T, B, D) to (T, B, U). None, and nothing has happened, where the weights have become others than these steps can read.
  std::optional<Tensor> push(const Tensor& x) {
    const at::AutoDispatchBelowADInplaceOrView beneath;
    try {
      for (const Level& level : levels_) level.check();
    } catch (const c10::ValueError&) {
      return std::nullopt;
    }
    TORCH_CHECK_VALUE(x.dim() == 3, "recurrence: expected steps (T, B, D), got ", x.sizes());
    check_floats(x, {x.size(0), B_, levels_[0].layer.D}, "x");
    if (x.size(0) != 1 || B_ > kFewUses) {
      Tensor y = x;
      for (Level& level : levels_) y = level.steps(y);
      return y;
    }
    const float* h = numbers(x);
    for (Level& level : levels_) h = level.step(h);
    Tensor y = at::empty({1, B_, levels_[0].layer.U}, x.options());
    std::copy(h, h + y.numel(), floats(y));
    return y;
  }

  // Copies, each (L, B, U).
  std::vector<Tensor> state() const {
    std::vector<Tensor> all;
    const Layer& layer = levels_[0].layer;
    const int64_t size = layer.B * layer.U, L = static_cast<int64_t>(levels_.size());
    for (size_t part = 0; part < levels_[0].state.size(); ++part) {
      all.push_back(at::empty({L, layer.B, layer.U}, levels_[0].state[part].options()));
      for (int64_t n = 0; n < L; ++n) std::copy_n(numbers(levels_[n].state[part]), size, floats(all.back()) + n * size);
    }
    return all;
  }

 private:
  int64_t B_;
  std::vector<Level> levels_;
};

}  // namespace
}  // namespace twofold

TORCH_LIBRARY_FRAGMENT(twofold, m) {
  m.class_<twofold::Stream>("RecurrenceStream")
      .def(torch::init<int64_t, const std::vector<at::Tensor>&, const twofold::Maybes&, double, double>())
      .def("push", &twofold::Stream::push)
      .def("state", &twofold::Stream::state);
}
