// Large buffers that are needed again with every step of training. A page of fresh memory costs more than computing what fills it: the
// system must find and clear it (0.5 ms for a megabyte here), and beyond 32 MB the C library gives every buffer back at once. So a few are kept.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstdlib>
#include <map>
#include <mutex>

namespace twofold {

class HeldMemory {
 public:
  // Floats of this size, not initialised; what is large comes from what was kept.
  static at::Tensor floats(at::IntArrayRef size, const at::TensorOptions& options) {
    size_t bytes = sizeof(float);
    for (const int64_t n : size) bytes *= static_cast<size_t>(n);
    if (bytes < kLarge) return at::empty(size, options);
    auto [at, room] = own().take(bytes);
    if (!at) return at::empty(size, options);  // it will say that memory is short
    return at::from_blob(at, size, [at, room](void*) { own().give(at, room); }, options);
  }

 private:
  static constexpr size_t kLarge = 1 << 20, kMost = size_t{256} << 20;  // bytes: of a large buffer; kept in all

  static HeldMemory& own() {
    static HeldMemory* held = new HeldMemory;  // never destroyed: tensors may outlive every static object
    return *held;
  }
  std::pair<void*, size_t> take(size_t bytes) {
    {
      const std::lock_guard<std::mutex> lock(turn_);
      const auto found = free_.lower_bound(bytes);
      if (found != free_.end() && found->first <= bytes + bytes / 2) {
        const std::pair<void*, size_t> taken{found->second, found->first};
        kept_ -= found->first;
        free_.erase(found);
        return taken;
      }
    }
    const size_t room = (bytes + kLarge - 1) / kLarge * kLarge;
    return {std::aligned_alloc(64, room), room};
  }
  void give(void* at, size_t room) {
    const std::lock_guard<std::mutex> lock(turn_);
    while (kept_ + room > kMost && !free_.empty()) {  // the smallest first: they are the cheapest to have anew
      kept_ -= free_.begin()->first;
      std::free(free_.begin()->second);
      free_.erase(free_.begin());
    }
    if (kept_ + room > kMost) {
      std::free(at);
      return;
    }
    free_.emplace(room, at);
    kept_ += room;
  }

  std::mutex turn_;
  std::multimap<size_t, void*> free_;
  size_t kept_ = 0;
};

}  // namespace twofold
