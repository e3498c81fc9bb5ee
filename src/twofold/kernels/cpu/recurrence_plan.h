// How a recurrent layer is walked through: who does what, the weights packed for it, and the description that the kernels read
// (recurrence_table.h). Forward, backward and streams share it.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <string>
#include <vector>

#include "dispatch.h"
#include "held_memory.h"
#include "recurrence_layer.h"

namespace twofold {

constexpr int64_t kFewRows = 4;      // rows a thread, below which sharing units is the better way
constexpr int64_t kWorth = 1 << 20;  // multiply-adds that are worth a second thread
constexpr int64_t kWorthRead = 1 << 17;  // the same where each weight is read for a product or four
constexpr int64_t kFewUses = 4;      // rows of all steps, for which weights are not packed
constexpr int64_t kTogether = 48;  // rows of a product

inline const RecurrenceKernels& kernels_for(const Layer& layer) {
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

inline float* floats(const at::Tensor& x) { return x.defined() && x.numel() ? x.mutable_data_ptr<float>() : nullptr; }
inline const float* numbers(const at::Tensor& x) { return x.defined() ? x.const_data_ptr<float>() : nullptr; }

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

inline int64_t step_at(const Recurrence& r, int64_t k) { return r.reverse ? r.T - 1 - k : k; }

inline at::Tensor total_bias(const Layer& layer, const at::Tensor* w) {
  const at::Tensor &input = w[kInputBias], &state = w[kStateBias];
  if (!input.defined() || !state.defined()) return input;
  if (layer.kind != CellKind::gru) return input + state;
  at::Tensor bias = input.clone();  // the last third stays inside of r (...)
  bias.narrow(0, 0, 2 * layer.U).add_(state.narrow(0, 0, 2 * layer.U));
  return bias;
}

// Room for what forward leaves of the rows of all steps, in one direction.
inline void make_room(const Layer& layer, const at::Tensor* w, const at::Tensor* drawn, at::Tensor* kept, const at::TensorOptions& options) {
  const int64_t N = layer.all_rows(), U = layer.U, G = layer.gates() * U;
  const auto room = [&](at::IntArrayRef size) { return HeldMemory::tensor(size, at::kFloat); };
  const bool gru = layer.kind == CellKind::gru, normal = w[kStateNorm].defined();
  kept[kGates] = room({N, G});
  if (normal) {
    kept[kRawInput] = room({N, G}), kept[kProduct] = room({N, G});
    kept[kInputMoments] = at::empty({N, 4}, options), kept[kMoments] = at::empty({N, 4}, options);
  }
  if (layer.has_cell()) kept[kCell] = room({N, U});
  if (layer.has_cell() && (drawn[kZoneC].defined() || layer.keep_c != 0)) kept[kRawCell] = room({N, U});
  if (gru && !normal) kept[kQ] = room({N, U});
  if (w[kCellNorm].defined()) kept[kCellMoments] = at::empty({N, 2}, options);
}

// The weights that are read as they lie.
inline void read_weights(const Layer& layer, const at::Tensor* w, Recurrence& r) {
  r.weight_ih = numbers(w[kInputWeight]), r.weight_hh = numbers(w[kStateWeight]);
  r.bias_n = layer.kind == CellKind::gru && w[kStateBias].defined() ? numbers(w[kStateBias]) + 2 * layer.U : nullptr;
  r.peephole = numbers(w[kPeephole]);
  r.norm_ih = numbers(w[kInputNorm]), r.norm_hh = numbers(w[kStateNorm]), r.norm_c = numbers(w[kCellNorm]), r.norm_c_bias = numbers(w[kCellNormBias]);
}

// The description that the kernels read, of one direction.
inline Recurrence describe(const Layer& layer, int64_t s, const Tensors& state, const at::Tensor* w, const at::Tensor* noise, const at::Tensor* kept,
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
  read_weights(layer, w, r);
  r.mask = numbers(noise[kMask]), r.zone_h = numbers(noise[kZoneH]), r.zone_c = numbers(noise[kZoneC]);
  r.keep_h = static_cast<float>(layer.keep_h), r.keep_c = static_cast<float>(layer.keep_c);
  return r;
}

// All steps forward, each direction's as described. Packings is empty where weights are read as they lie.
void walk(const RecurrenceKernels& k, const Layer& layer, at::ArrayRef<Recurrence> all, at::ArrayRef<Packing> packings, const Plan& plan);

}  // namespace twofold
