// Large buffers that are needed again with every step of training. A page of fresh memory costs more than computing what fills it: the
// system must find and clear it (0.5 ms for a megabyte here), and the C library gives large buffers back when they are freed. So some are
// kept: maps, and what kernels need on the way.
#pragma once
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

namespace twofold {

class HeldMemory final : public c10::Allocator {
 public:
  // A tensor, not initialised.
  static at::Tensor tensor(at::IntArrayRef size, at::ScalarType type, at::MemoryFormat format = at::MemoryFormat::Contiguous) {
    return at::Tensor(at::detail::empty_generic(size, &own(), c10::DispatchKeySet(c10::DispatchKey::CPU), type, format));
  }

  struct Back {
    size_t room = 0;  // 0: it was too small to be kept
    void operator()(float* p) const { room ? own().give(p, room) : std::free(p); }
  };
  using Floats = std::unique_ptr<float[], Back>;

  // The same without a tensor, in whole cache lines.
  static Floats floats(int64_t size) {
    const size_t bytes = (static_cast<size_t>(size) * sizeof(float) + kLine - 1) / kLine * kLine;
    if (bytes < kLarge) return Floats(static_cast<float*>(std::aligned_alloc(kLine, bytes)));
    const auto [at, room] = own().take(bytes);
    return Floats(static_cast<float*>(at), Back{room});
  }

  // Gives back what is kept and not in use. Returns how many bytes that were.
  static size_t release() { return own().shrink(0); }

  c10::DataPtr allocate(size_t bytes) override {
    if (bytes < kLarge) return c10::GetCPUAllocator()->allocate(bytes);
    const auto [at, room] = take(bytes);
    return {at, new std::pair<void*, size_t>(at, room), &HeldMemory::put_back, c10::Device(c10::DeviceType::CPU)};
  }
  void copy_data(void* to, const void* from, std::size_t count) const override { default_copy_data(to, from, count); }

 private:
  static constexpr size_t kLine = 64, kStep = 1 << 16, kLarge = 1 << 18;  // bytes: a cache line, what sizes are rounded to, a large buffer

  static HeldMemory& own() {
    static HeldMemory* held = new HeldMemory;  // never destroyed: tensors may outlive every static object
    return *held;
  }
  // An eighth of the machine's memory is kept at most, and no more than 4 GB.
  HeldMemory()
      : most_(std::min(size_t{4} << 30,
            static_cast<size_t>(std::max<long>(0, sysconf(_SC_PHYS_PAGES))) / 8 * static_cast<size_t>(sysconf(_SC_PAGE_SIZE)))) {
    pthread_atfork([] { own().turn_.lock(); }, [] { own().turn_.unlock(); }, [] { own().turn_.unlock(); });
  }

  static void put_back(void* context) {
    const std::unique_ptr<std::pair<void*, size_t>> block(static_cast<std::pair<void*, size_t>*>(context));
    own().give(block->first, block->second);
  }
  std::pair<void*, size_t> take(size_t bytes) {
    {
      const std::lock_guard<std::mutex> lock(turn_);
      auto found = free_.lower_bound(bytes);
      if (found != free_.end() && found->first <= bytes + bytes / 2) {
        found = std::prev(free_.upper_bound(found->first));  // of that size the one freed last: it may still be in the cache
        const std::pair<void*, size_t> taken{found->second, found->first};
        kept_ -= found->first;
        free_.erase(found);
        return taken;
      }
    }
    const size_t room = (bytes + kStep - 1) / kStep * kStep;
    void* at = std::aligned_alloc(kLine, room);
    if (!at && shrink(0)) at = std::aligned_alloc(kLine, room);
    if (!at) throw std::bad_alloc();
    return {at, room};
  }
  void give(void* at, size_t room) {
    shrink(most_ > room ? most_ - room : 0);
    const std::lock_guard<std::mutex> lock(turn_);
    if (room > most_) return std::free(at);
    free_.emplace(room, at);
    kept_ += room;
  }
  // Frees until no more than `most` bytes are kept, the smallest first: they are the cheapest to have anew.
  size_t shrink(size_t most) {
    const std::lock_guard<std::mutex> lock(turn_);
    const size_t before = kept_;
    while (kept_ > most) {
      kept_ -= free_.begin()->first;
      std::free(free_.begin()->second);
      free_.erase(free_.begin());
    }
    return before - kept_;
  }

  const size_t most_;
  std::mutex turn_;
  std::multimap<size_t, void*> free_;
  size_t kept_ = 0;
};

}  // namespace twofold
