// A recurrent layer backwards, in one parallel region: the steps, last to first, some at a time, and for each such chunk, while a cache still
// holds what it left, the gradients of weights and inputs. Who does what: bind_recurrence.cpp.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "recurrence_plan.h"
#include "team.h"

namespace twofold {
namespace {

constexpr int64_t kChunk = 1 << 20;  // numbers of gates' gradients that are worked up together, while a cache still holds them

// The gradient of GRU's b_hn beneath a norm: sum_rows da_n r, into the last third of `to`.
void add_reset_rows(int64_t rows, int64_t U, const float* da, const float* gates, int64_t begin, int64_t end, float* to) {
  for (int64_t m = std::max(begin, 2 * U); m < end; ++m) {
    for (int64_t row = 0; row < rows; ++row) to[m] += da[row * 3 * U + m] * gates[row * 3 * U + m - 2 * U];
  }
}

}  // namespace

Gradients recurrence_backward(const Layer& layer, const at::Tensor& dy, const Tensors& dstate, const at::Tensor& x, const Tensors& state,
    const at::Tensor& y, const Tensors& weights, const Tensors& noise, const Tensors& kept, bool with_x, bool with_weights) {
  const RecurrenceKernels& k = kernels_for(layer);
  const int64_t N = layer.all_rows(), U = layer.U, G = layer.gates() * U, S = layer.directions, D = layer.D;
  const auto room = [&](at::IntArrayRef size) { return HeldMemory::tensor(size, at::kFloat); };
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
