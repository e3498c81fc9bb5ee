// A recurrent layer as a node of autograd. The kernels compute (bind_recurrence.cpp), this file asks, differentiates and, where a backward
// pass is itself to be differentiated, computes the layer anew in torch's own operators, step by step, with autograd watching.
#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/rsub.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tanh.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "recurrence_layer.h"
#include "row_order.h"

namespace twofold {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;
using Numbers = std::vector<int64_t>;
using Maybes = c10::List<std::optional<Tensor>>;

}  // namespace

void check_floats(const at::Tensor& x, at::IntArrayRef size, const char* name) {
  TORCH_CHECK_VALUE(x.is_cpu() && x.scalar_type() == at::kFloat && x.is_contiguous() && x.sizes() == size, "recurrence: expected ", name,
      " to be contiguous float32 ", size, " on the CPU, got ", x.scalar_type(), " ", x.sizes());
}

static void check_given(const at::Tensor& x, at::IntArrayRef size, const char* name) {
  if (x.defined()) check_floats(x, size, name);
}

void check_weights(CellKind kind, int64_t D, int64_t U, const at::Tensor* w) {
  const int64_t gates = gates_of(kind), G = gates * U;
  const bool has_cell = kind == CellKind::lstm || kind == CellKind::coupled;
  TORCH_CHECK_VALUE(w[kInputWeight].defined() && w[kStateWeight].defined(), "recurrence: weights are missing");
  TORCH_CHECK_VALUE(w[kInputBias].defined() == w[kStateBias].defined(), "recurrence: expected both biases or none");
  TORCH_CHECK_VALUE(w[kInputNorm].defined() == w[kStateNorm].defined() && w[kCellNorm].defined() == w[kCellNormBias].defined() &&
      w[kCellNorm].defined() == (has_cell && w[kStateNorm].defined()), "recurrence: expected all gains of the layer norm or none");
  TORCH_CHECK_VALUE(has_cell || !w[kPeephole].defined(), "recurrence: only an LSTM has peepholes");
  check_floats(w[kInputWeight], {G, D}, "weight_ih");
  check_floats(w[kStateWeight], {G, U}, "weight_hh");
  check_given(w[kInputBias], {G}, "bias_ih");
  check_given(w[kStateBias], {G}, "bias_hh");
  check_given(w[kPeephole], {(gates - 1) * U}, "the peephole");
  check_given(w[kInputNorm], {G}, "norm_ih");
  check_given(w[kStateNorm], {G}, "norm_hh");
  check_given(w[kCellNorm], {U}, "norm_c");
  check_given(w[kCellNormBias], {U}, "norm_c_bias");
}

namespace {

Tensors plain(const Maybes& given) {
  Tensors all;
  for (const std::optional<Tensor>& x : given) all.push_back(x.value_or(Tensor()));
  return all;
}

// Every size is asked for here: the kernels read without asking.
Layer checked(const Tensor& x, const std::optional<Tensor>& lengths, const Tensors& state, const Tensors& weights, const Tensors& noise,
    double keep_h, double keep_c, int64_t kind, bool reduced) {
  TORCH_CHECK_VALUE(kind >= 0 && kind <= 4, "recurrence: there is no cell ", kind);
  const auto cell = static_cast<CellKind>(kind);
  const bool has_cell = cell == CellKind::lstm || cell == CellKind::coupled;
  TORCH_CHECK_VALUE(x.dim() == 3 && state.size() == (has_cell ? 2u : 1u) && state[0].dim() == 3, "recurrence: x and the state do not fit the cell");
  const int64_t T = x.size(0), B = x.size(1), D = x.size(2), S = state[0].size(0), U = state[0].size(2);
  TORCH_CHECK_VALUE((S == 1 || S == 2) && U > 0, "recurrence: expected one or two directions and units, got ", state[0].sizes());
  TORCH_CHECK_VALUE(static_cast<int64_t>(weights.size()) == S * kParts && static_cast<int64_t>(noise.size()) == S * kNoises,
      "recurrence: expected ", S * kParts, " weights and ", S * kNoises, " draws");
  check_floats(x, {T, B, D}, "x");
  for (const Tensor& part : state) check_floats(part, {S, B, U}, "the state");
  for (int64_t s = 0; s < S; ++s) {
    const Tensor* w = &weights[s * kParts];
    check_weights(cell, D, U, w);
    const Tensor* drawn = &noise[s * kNoises];
    check_given(drawn[kMask], {B, U}, "the mask");
    check_given(drawn[kZoneH], {T, B, U}, "the zone of h");
    check_given(drawn[kZoneC], {T, B, U}, "the zone of c");
  }
  if (!lengths) return {cell, T, B, D, U, S, keep_h, keep_c, reduced, RowOrder(T, B)};
  TORCH_CHECK_VALUE(lengths->is_cpu() && lengths->scalar_type() == at::kLong && lengths->is_contiguous() && lengths->dim() == 1 &&
      lengths->size(0) == B, "recurrence: expected a length for each of ", B, " rows");
  for (int64_t row = 0; row < B; ++row) {
    const int64_t length = lengths->const_data_ptr<int64_t>()[row];
    TORCH_CHECK_VALUE(length >= 0 && length <= T, "recurrence: a length of ", length, " for ", T, " steps");
  }
  RowOrder rows(*lengths, B);
  const int64_t steps = rows.starts.size(0) - 1;
  return {cell, steps, B, D, U, S, keep_h, keep_c, reduced, std::move(rows)};
}

// LN(p) gain: over all gates, or over r z and n apart.
Tensor normal(const Tensor& p, const Tensor& gain, bool grouped) {
  if (!grouped) return at::layer_norm(p, {p.size(1)}, gain, {}, 1e-5);
  const int64_t border = p.size(1) / 3 * 2, rest = p.size(1) - border;
  return at::cat({at::layer_norm(p.narrow(1, 0, border), {border}, gain.narrow(0, 0, border), {}, 1e-5),
      at::layer_norm(p.narrow(1, border, rest), {rest}, gain.narrow(0, border, rest), {}, 1e-5)}, 1);
}

// The layer in torch's own operators: (y, state).
variable_list unrolled(const Layer& layer, const Tensor& x, const Tensors& state, const Tensors& weights, const Tensors& noise) {
  const int64_t U = layer.U;
  const int64_t* start = layer.rows.starts.const_data_ptr<int64_t>();
  const bool gru = layer.kind == CellKind::gru, coupled = layer.kind == CellKind::coupled;
  std::vector<Tensor> sides, last_h, last_c;
  for (int64_t s = 0; s < layer.directions; ++s) {
    const Tensor *w = &weights[s * kParts], *drawn = &noise[s * kNoises];
    Tensor drive = at::linear(x, w[kInputWeight]);
    if (w[kInputNorm].defined()) drive = normal(drive, w[kInputNorm], gru);
    if (w[kInputBias].defined()) drive = drive + w[kInputBias];
    Tensor h = state[0][s], c = layer.has_cell() ? state[1][s] : Tensor();
    std::vector<Tensor> y(layer.T);
    for (int64_t step = 0; step < layer.T; ++step) {
      const int64_t t = s == 1 ? layer.T - 1 - step : step, n = start[t + 1] - start[t];
      const Tensor a_x = drive.narrow(0, start[t], n), h_b = h.narrow(0, 0, n), c_b = c.defined() ? c.narrow(0, 0, n) : c;
      Tensor p = at::linear(drawn[kMask].defined() ? h_b * drawn[kMask].narrow(0, 0, n) : h_b, w[kStateWeight]);
      if (w[kStateNorm].defined()) p = normal(p, w[kStateNorm], gru);
      if (w[kStateBias].defined()) p = p + w[kStateBias];
      const auto of = [&](const Tensor& a, int64_t gate) { return a.narrow(1, gate * U, U); };
      const auto peep = [&](const Tensor& a, int64_t which, const Tensor& cell) {
        return w[kPeephole].defined() ? a + w[kPeephole].narrow(0, which * U, U) * cell : a;
      };
      Tensor new_h, new_c;
      if (gru) {
        const Tensor r = at::sigmoid(of(a_x, 0) + of(p, 0)), z = at::sigmoid(of(a_x, 1) + of(p, 1));
        const Tensor candidate = at::tanh(of(a_x, 2) + r * of(p, 2));
        new_h = candidate + z * (h_b - candidate);
      } else if (layer.has_cell()) {
        const Tensor a = a_x + p, i = at::sigmoid(peep(of(a, 0), 0, c_b)), f = coupled ? 1 - i : at::sigmoid(peep(of(a, 1), 1, c_b));
        const Tensor g = at::tanh(of(a, coupled ? 1 : 2));
        new_c = f * c_b + i * g;
        const Tensor o = at::sigmoid(peep(of(a, coupled ? 2 : 3), coupled ? 1 : 2, new_c));
        new_h = o * at::tanh(w[kCellNorm].defined() ? at::layer_norm(new_c, {U}, w[kCellNorm], w[kCellNormBias], 1e-5) : new_c);
      } else {
        new_h = layer.kind == CellKind::relu ? at::relu(a_x + p) : at::tanh(a_x + p);
      }
      const auto kept = [&](const Tensor& zone, double keep, const Tensor& before, const Tensor& now) {
        if (zone.defined()) return now + zone.narrow(0, start[t], n) * (before - now);
        return keep != 0 ? now + keep * (before - now) : now;
      };
      y[t] = kept(drawn[kZoneH], layer.keep_h, h_b, new_h);
      h = n < layer.B ? at::cat({y[t], h.narrow(0, n, layer.B - n)}) : y[t];
      if (!c.defined()) continue;
      new_c = kept(drawn[kZoneC], layer.keep_c, c_b, new_c);
      c = n < layer.B ? at::cat({new_c, c.narrow(0, n, layer.B - n)}) : new_c;
    }
    sides.push_back(layer.T ? at::cat(y) : x.new_empty({0, U}));
    last_h.push_back(h);
    last_c.push_back(c);
  }
  variable_list all{at::cat(sides, 1), at::stack(last_h)};
  if (layer.has_cell()) all.push_back(at::stack(last_c));
  return all;
}

// The weights of all parts, from those that are there: places[n] is where part n stands among them, or -1.
Tensors placed(at::TensorList present, const Numbers& places) {
  Tensors all;
  for (const int64_t place : places) all.push_back(place < 0 ? Tensor() : present[place]);
  return all;
}

// x, state and what was drawn, by rows of unequal length; the last axis is one row's.
struct Packing {
  const RowOrder& rows;
  int64_t T, B;  // of the padded batch
  Tensor sequence(const Tensor& x) const {  // (T, B, ...) as (N, ...)
    return !x.defined() ? x : rows.all() ? x.view({T * B, x.size(-1)}) : moved_rows(x, rows.places, 1, false, rows.places.numel());
  }
  Tensor padded(const Tensor& y) const {
    return (rows.all() ? y : moved_rows(y, rows.places, 1, true, T * B)).view({T, B, y.size(-1)});
  }
  Tensor state(const Tensor& h, bool back) const {  // (S, B, U) or (B, U)
    return !h.defined() || rows.all() ? h : moved_rows(h, rows.order, h.numel() / std::max<int64_t>(1, B * h.size(-1)), back, B).view(h.sizes());
  }
  Tensors states(const Tensors& all, bool back) const {
    Tensors moved;
    for (const Tensor& h : all) moved.push_back(state(h, back));
    return moved;
  }
  Tensors noise(const Tensors& drawn) const {
    Tensors moved;
    for (size_t n = 0; n < drawn.size(); ++n) moved.push_back(n % kNoises == kMask ? state(drawn[n], false) : sequence(drawn[n]));
    return moved;
  }
};

struct Recur : Function<Recur> {
  // given: the state, then the weights that are there
  static variable_list forward(AutogradContext* ctx, const Tensor& x, at::TensorList given, const Numbers& places, const Tensors& noise,
      const Layer& layer) {
    const int64_t states = layer.has_cell() ? 2 : 1, T = x.size(0);
    const Packing packing{layer.rows, T, layer.B};
    const Tensors weights = placed(given.slice(states), places);
    const Tensor rows = packing.sequence(x);
    const Tensors state = packing.states(given.slice(0, states).vec(), false), drawn = packing.noise(noise);
    const Result result = recurrence_forward(layer, rows, state, weights, drawn);
    const Tensor y = packing.padded(result.y);
    const bool all = layer.rows.all();  // then nothing was moved
    variable_list keep{x, all ? y : result.y, layer.rows.starts, layer.rows.order, layer.rows.places, all ? Tensor() : rows};
    const auto append = [&](const auto& some) { keep.insert(keep.end(), some.begin(), some.end()); };
    append(given);
    append(all ? Tensors(states) : state);
    append(drawn);
    append(result.kept);
    ctx->save_for_backward(keep);
    ctx->saved_data["layer"] = c10::IValue(std::make_tuple(static_cast<int64_t>(layer.kind), Numbers{layer.T, layer.B, layer.D, layer.U,
        layer.directions, static_cast<int64_t>(given.size())}, places, layer.keep_h, layer.keep_c, layer.reduced));
    variable_list out{y};
    for (const Tensor& part : packing.states(result.state, true)) out.push_back(part);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& came) {
    const auto saved = ctx->get_saved_variables();
    const auto [kind, sizes, places, keep_h, keep_c, reduced] =
        ctx->saved_data["layer"].to<std::tuple<int64_t, Numbers, Numbers, double, double, bool>>();
    Layer layer{static_cast<CellKind>(kind), sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], keep_h, keep_c, reduced, RowOrder(0, 0)};
    layer.rows.starts = saved[2], layer.rows.order = saved[3], layer.rows.places = saved[4];
    const int64_t states = layer.has_cell() ? 2 : 1, given = sizes[5], S = layer.directions;
    int64_t at = 6;
    const auto next = [&](int64_t count) {
      at += count;
      return Tensors(saved.begin() + (at - count), saved.begin() + at);
    };
    const Tensor& x = saved[0];
    const Tensors state = next(states), present = next(given - states), moved = next(states), noise = next(S * kNoises), kept = next(S * kKept);
    const Tensors weights = placed(present, places);
    const Packing packing{layer.rows, x.size(0), layer.B};
    const bool all = layer.rows.all();
    variable_list found(given + 4);
    if (at::GradMode::is_enabled()) {
      again(layer, x, state, present, weights, noise, came, found);
      return found;
    }
    bool with_weights = false;
    for (int64_t n = states; n < given; ++n) with_weights = with_weights || ctx->needs_input_grad(1 + n);
    Tensors dstate;
    for (int64_t n = 0; n < states; ++n) dstate.push_back(packing.state(came[1 + n].contiguous(), false));
    const Tensor dy = packing.sequence(came[0].contiguous()), rows = all ? packing.sequence(x) : saved[5];
    const Tensor y = all ? saved[1].view({x.size(0) * layer.B, S * layer.U}) : saved[1];
    Gradients d = recurrence_backward(layer, dy, dstate, rows, all ? state : moved, y, weights, noise, kept, ctx->needs_input_grad(0), with_weights);
    if (d.x.defined()) found[0] = packing.padded(d.x);
    for (int64_t n = 0; n < states; ++n) found[1 + n] = packing.state(d.state[n], true);
    for (size_t n = 0; n < places.size(); ++n) {
      if (places[n] >= 0) found[1 + states + places[n]] = d.weights[n];
    }
    return found;
  }

  // The gradients with a graph of their own.
  static void again(const Layer& layer, const Tensor& x, const Tensors& state, const Tensors& present, const Tensors& weights,
      const Tensors& noise, const variable_list& came, variable_list& found) {
    const RowOrder& rows = layer.rows;
    const int64_t T = x.size(0), B = layer.B, width = layer.directions * layer.U;
    const Tensor flat = x.reshape({T * B, layer.D});
    Tensors sorted = state;
    for (Tensor& part : sorted) part = rows.all() ? part : part.index_select(1, rows.order);
    variable_list results = unrolled(layer, rows.all() ? flat : flat.index_select(0, rows.places), sorted, weights, noise);
    if (!rows.all()) {
      results[0] = at::zeros({T * B, width}, x.options()).index_copy(0, rows.places, results[0]);
      for (size_t n = 1; n < results.size(); ++n) results[n] = results[n].index_select(1, rows.order.argsort());
    }
    results[0] = results[0].view({T, B, width});
    variable_list inputs{x}, asked;
    inputs.insert(inputs.end(), state.begin(), state.end());
    inputs.insert(inputs.end(), present.begin(), present.end());
    for (const Tensor& input : inputs) {
      if (input.requires_grad()) asked.push_back(input);
    }
    const variable_list d = torch::autograd::grad(results, asked, came, true, true, true);
    for (size_t n = 0, at = 0; n < inputs.size(); ++n) {
      if (inputs[n].requires_grad()) found[n] = d[at++];
    }
  }
};

std::vector<Tensor> recurrence(const Tensor& x, const std::optional<Tensor>& lengths, at::TensorList state, const Maybes& weights,
    const Maybes& noise, double keep_h, double keep_c, int64_t kind, bool reduced) {
  Tensors given = state.vec();
  const Tensors parts = plain(weights), drawn = plain(noise);
  const Layer layer = checked(x, lengths, given, parts, drawn, keep_h, keep_c, kind, reduced);
  const auto wants = [](const Tensor& w) { return w.defined() && w.requires_grad(); };
  const bool watched = at::GradMode::is_enabled() &&
      (wants(x) || std::any_of(given.begin(), given.end(), wants) || std::any_of(parts.begin(), parts.end(), wants));
  if (watched) {
    Numbers places;
    const size_t states = given.size();
    for (const Tensor& w : parts) {
      places.push_back(w.defined() ? static_cast<int64_t>(given.size() - states) : -1);
      if (w.defined()) given.push_back(w);
    }
    return Recur::apply(x, at::TensorList(given), places, drawn, layer);
  }
  const at::AutoDispatchBelowADInplaceOrView beneath;
  const Packing packing{layer.rows, x.size(0), layer.B};
  const Result result = recurrence_forward(layer, packing.sequence(x), packing.states(given, false), parts, packing.noise(drawn));
  variable_list out{packing.padded(result.y)};
  for (const Tensor& part : packing.states(result.state, true)) out.push_back(part);
  return out;
}

}  // namespace
}  // namespace twofold

TORCH_LIBRARY_FRAGMENT(twofold, m) {
  m.def("recurrence(Tensor x, Tensor? lengths, Tensor[] state, Tensor?[] weights, Tensor?[] noise, float keep_h, float keep_c, int kind,"
        " bool reduced) -> Tensor[]", twofold::recurrence);
}
