// Linear layers over few rows, as torch sees them.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

#include "dispatch.h"

namespace twofold {
namespace {

void check_matrix(const at::Tensor& matrix, const char* name) {
  TORCH_CHECK_VALUE(matrix.dim() == 2 && matrix.scalar_type() == at::kFloat && matrix.is_contiguous(),
      "dense: expected ", name, " to be a contiguous float32 matrix");
}

at::Tensor dense(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, bool relu) {
  check_matrix(x, "x");
  check_matrix(weight, "weight");
  const int64_t rows = x.size(0), D = x.size(1), units = weight.size(0);
  TORCH_CHECK_VALUE(weight.size(1) == D, "dense: weight and x do not fit");
  TORCH_CHECK_VALUE(!bias || (bias->scalar_type() == at::kFloat && bias->is_contiguous() && bias->numel() == units), "dense: bias does not fit");
  const at::Tensor y = at::empty({rows, units}, x.options());
  kernels().dense.forward(rows, D, units, x.const_data_ptr<float>(), weight.const_data_ptr<float>(),
      bias ? bias->const_data_ptr<float>() : nullptr, relu, y.mutable_data_ptr<float>());
  return y;
}

// (dx, dweight, dbias), empty where not wanted
std::tuple<at::Tensor, at::Tensor, at::Tensor> dense_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
    bool wants_input, bool wants_weight, bool wants_bias) {
  check_matrix(dy, "dy");
  check_matrix(x, "x");
  check_matrix(weight, "weight");
  const int64_t rows = x.size(0), D = x.size(1), units = weight.size(0);
  TORCH_CHECK_VALUE(weight.size(1) == D && dy.size(0) == rows && dy.size(1) == units, "dense_backward: dy, x and weight do not fit");
  const auto room = [&](bool wanted, at::IntArrayRef size) { return at::empty(wanted ? size : at::IntArrayRef{0}, x.options()); };
  const int64_t every[] = {units};
  const at::Tensor dx = room(wants_input, x.sizes()), dweight = room(wants_weight, weight.sizes()), dbias = room(wants_bias, every);
  kernels().dense.backward(rows, D, units, dy.const_data_ptr<float>(), x.const_data_ptr<float>(), weight.const_data_ptr<float>(),
      wants_input ? dx.mutable_data_ptr<float>() : nullptr, wants_weight ? dweight.mutable_data_ptr<float>() : nullptr,
      wants_bias ? dbias.mutable_data_ptr<float>() : nullptr);
  return {dx, dweight, dbias};
}

}  // namespace
}  // namespace twofold

TORCH_LIBRARY_FRAGMENT(twofold, m) {
  m.def("linear(Tensor x, Tensor weight, Tensor? bias, bool relu) -> Tensor");
  m.def("linear_backward(Tensor dy, Tensor x, Tensor weight, bool wants_input, bool wants_weight, bool wants_bias) -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(twofold, CPU, m) {
  m.impl("linear", twofold::dense);
  m.impl("linear_backward", twofold::dense_backward);
}
