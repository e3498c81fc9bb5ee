// A number in bfloat16: the first 16 of float32's bits.
#pragma once
#include <cstdint>

namespace twofold {

struct Half {
  uint16_t bits;
};

}  // namespace twofold
