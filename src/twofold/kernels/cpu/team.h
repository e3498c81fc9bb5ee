// Threads that walk through many short steps together.
//
// at::parallel_for costs microseconds, more than a step of a small recurrence takes: here its threads stay until all steps are done and
// wait for each other by looking at a number. Who comes too late, because a thread sleeps, because all run one after the other or because
// the machine is busy, is not waited for: the team is closed, and the late one goes home.
#pragma once
#include <ATen/Parallel.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace twofold {

class Team {
 public:
  explicit Team(int64_t wanted) : wanted_(wanted) {}

  // work(member) on every member, in parallel; `size()` of them, which is known when work begins.
  template <class Work>
  static void run(int64_t wanted, Work work) {
    Team team(wanted);
    if (wanted <= 1) {
      team.size_ = 1;
      work(team, int64_t{0});
      return;
    }
    at::parallel_for(0, wanted, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const int64_t member = team.join();
        if (member >= 0) work(team, member);
      }
    });
  }

  int64_t size() const { return size_; }

  // Returns when all members are here.
  void wait() {
    if (size_ == 1) return;
    const int64_t turn = turn_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      turn_.store(turn + 1, std::memory_order_release);
      return;
    }
    for (int64_t looks = 0; turn_.load(std::memory_order_acquire) == turn; ++looks) rest(looks);
  }

 private:
  static constexpr int64_t kClosed = -1;
  static constexpr int64_t kPatience = 100;  // microseconds that the first waits for the others

  // This thread's number, or -1 where the team is closed. The first to come closes it.
  int64_t join() {
    int64_t seen = joined_.load();
    do {
      if (seen < 0) return -1;
    } while (!joined_.compare_exchange_weak(seen, seen + 1));
    if (seen > 0) {
      for (int64_t looks = 0; size_now_.load(std::memory_order_acquire) == 0; ++looks) rest(looks);
      return seen;
    }
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(kPatience);
    while (joined_.load() < wanted_ && std::chrono::steady_clock::now() < end) rest(0);
    size_ = joined_.exchange(kClosed);
    size_now_.store(size_, std::memory_order_release);
    return 0;
  }

  static void rest(int64_t looks) {
    if (looks > 20000) {
      std::this_thread::yield();  // more threads than processors
      return;
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  const int64_t wanted_;
  int64_t size_ = 0;  // written before size_now_, read after it
  std::atomic<int64_t> joined_{0}, size_now_{0}, arrived_{0}, turn_{0};
};

}  // namespace twofold
