// A recurrent layer over all its steps, in one parallel region: the products with the inputs, some steps at a time so that what they leave is
// still in a cache when the steps take it up; and the steps (recurrence.h). Backward: recurrence_back.cpp.
//
// Threads share the rows of the batch where there are enough: each walks alone through all steps. Where rows are few they share the units
// and meet after every step (team.h).
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <vector>

#include "recurrence_plan.h"
#include "team.h"

namespace twofold {
namespace {

constexpr int64_t kAhead = 1 << 16;  // gates of a member's rows that are prepared for the next steps

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

void walk(const RecurrenceKernels& k, const Layer& layer, at::ArrayRef<Recurrence> all, at::ArrayRef<Packing> packings, const Plan& plan) {
  const int64_t G = layer.gates() * layer.U, count = all[0].panels.count;
  Team::run(plan.members, [&](Team& team, int64_t member) {
    for (const Packing& packing : packings) packing.share(k, member, team.size());
    if (!packings.empty()) team.wait();
    std::vector<float> x_seen(k.deep > 1 ? kTogether * all[0].drive_panels.cells : 0, 0.0f);
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
          prepare(all[s], step, steps, begin, end, 0, count);
          k.forward(all[s], step_at(all[s], step), begin, end, 0, count);
        }
      });
      return;
    }
    const int64_t first = member * count / team.size(), last = (member + 1) * count / team.size();
    const int64_t steps = ahead(layer.B, G / team.size());
    for (int64_t step = 0; step < layer.T; ++step) {
      for (const Recurrence& r : all) {
        prepare(r, step, steps, 0, layer.B, first, last);
        k.forward(r, step_at(r, step), 0, layer.B, first, last);
      }
      team.wait();
    }
  });
}

Result recurrence_forward(const Layer& layer, const at::Tensor& x, const Tensors& state, const Tensors& weights, const Tensors& noise) {
  const int64_t N = layer.all_rows(), U = layer.U, S = layer.directions;
  const bool direct = N <= kFewUses;
  const RecurrenceKernels& k = direct ? kernels().recurrence : kernels_for(layer);
  const auto room = [&](at::IntArrayRef size) { return HeldMemory::tensor(size, at::kFloat); };
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
    const bool normal = w[kStateNorm].defined();
    make_room(layer, w, drawn, kept, x.options());
    whole_rows = whole_rows || normal;
    Recurrence r = describe(layer, s, state, w, drawn, kept, result.y);
    const auto packed = [&](const Panels& shape, const at::Tensor& weight) {
      held.push_back(room({k.packed_size(shape)}));
      packings.push_back({shape, numbers(weight), 1, weight.size(1), floats(held.back())});
      return numbers(held.back());
    };
    r.panels = panels, r.drive_panels = drive_panels;
    if (!direct) r.packed = packed(panels, w[kStateWeight]), r.drive_packed = packed(drive_panels, w[kInputWeight]);
    r.x = numbers(x), r.D = layer.D;
    held.push_back(total_bias(layer, w));
    r.bias = numbers(held.back());
    r.raw = floats(kept[kRawInput]), r.raw_moments = floats(kept[kInputMoments]);
    if (k.deep > 1 || r.mask) {
      held.push_back(at::zeros({2, layer.B, panels.cells}, x.options()));
      r.seen = floats(held.back()), r.seen_step = panels.cells;
      for (int64_t slot = 0; slot < 2; ++slot) k.as_cells(layer.B, U, r.h_0, U, r.mask, r.seen + slot * layer.B * panels.cells, panels.cells);
    }
    all.push_back(r);
  }
  walk(k, layer, all, packings, Plan(layer, panels, whole_rows, direct));
  for (int64_t s = 0; s < S; ++s) {
    gather_last(layer, s, all[s].y, all[s].y_step, all[s].h_0, floats(result.state[0]) + s * layer.B * U);
    if (layer.has_cell()) gather_last(layer, s, all[s].c, U, all[s].c_0, floats(result.state[1]) + s * layer.B * U);
  }
  return result;
}

}  // namespace twofold
