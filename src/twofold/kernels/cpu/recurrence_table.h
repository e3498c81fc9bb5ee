// What the kernels of recurrence share with those that call them (recurrence.h).
#pragma once
#include <cstdint>

namespace twofold {

enum class CellKind : int64_t { tanh = 0, relu = 1, gru = 2, lstm = 3, coupled = 4 };

inline int64_t gates_of(CellKind kind) {
  return kind == CellKind::lstm ? 4 : kind == CellKind::gru || kind == CellKind::coupled ? 3 : 1;
}

// A matrix of inner_blocks * inner rows and blocks * units columns, cut into panels of whole vectors of columns; all blocks of the units
// of a panel lie together. Its rows are summed in cells of 32 bits: a cell is one float32, or a pair of bfloat16 of one inner block.
struct Panels {
  int64_t inner_blocks, inner, blocks, units, cells, vectors, count;
  int64_t first(int64_t panel) const { return panel * vectors / count; }
};

// One layer in one direction over T steps of at most B rows of U units; G = gates U. The rows of all steps lie behind each other: step t
// has `rows(t)` of them from row start(t) on, and rows(t) never grows with t. What is null is not there.
struct Recurrence {
  CellKind kind;
  int64_t T, B, U;
  const int64_t* starts;      // T + 1 of them
  bool reverse;               // reads the last step first
  Panels panels;              // of the product h W_hh'
  const float* packed;        // null where rows are so few that packing would cost more than it saves: then
  const float* weight_ih;     // (G, D) and
  const float* weight_hh;     // (G, U) as they are
  Panels drive_panels;        // of the product x W_ih', the same panels of units
  const float* drive_packed;
  const float* x;             // (N, D)
  int64_t D;
  const float* bias;          // (G)
  float* raw;                 // (N, G): x W_ih', where it is normalised
  float* raw_moments;         // (N, 4)
  const float* norm_ih;       // (G)
  float* gates;               // (N, G): the input's part of the pre-activations, then the gates
  float* y;                   // (N, y_step): h after every step
  int64_t y_step;
  float* c;                   // (N, U), after every step
  float* c_raw;               // (N, U): before zoneout, where there is any
  float* q;                   // (N, U): GRU's h W_hn' + b_hn
  float* product;             // (N, G): h W_hh', where it is normalised
  float* moments;             // (N, 2 or 4): mean and 1/deviation of each normalised group, where there are any
  float* cell_moments;        // (N, 2): those of c
  const float* h_0;           // (B, U)
  const float* c_0;           // (B, U)
  const float* bias_n;        // (U): GRU's b_hn
  const float* peephole;      // (3 U) i f o, or (2 U) i o where coupled
  const float* norm_hh;       // (G)
  const float* norm_c;        // (U)
  const float* norm_c_bias;   // (U)
  const float* mask;          // (B, U): the factor on h wherever it enters a product
  float* seen;                // (2, B, cells): the masked or rounded h of two steps, where it is not h itself
  int64_t seen_step;
  const float* zone_h;        // (N, U): the share of the old value
  const float* zone_c;
  float keep_h, keep_c;       // the same for all, where there is no tensor
  int64_t start(int64_t t) const { return starts[t]; }
  int64_t rows(int64_t t) const { return starts[t + 1] - starts[t]; }
  int64_t gate_count() const { return gates_of(kind); }
};

// The same backwards. da and dp hold a chunk of steps: row 0 is row `origin` of all.
struct RecurrenceBack {
  Panels panels;              // of the product dp W_hh
  const float* packed;
  const float* dy;            // (N, dy_step)
  int64_t dy_step;
  float* da;                  // (chunk, G): gradients of the input's part
  float* dp;                  // (chunk, G): gradients of the product h W_hh'; da itself where they are the same
  float* dp_seen;             // (B, cells): dp of one step as the product sees it, where that is not dp
  int64_t dp_seen_step;
  float* seen;                // (chunk, U): the h that entered the product
  int64_t origin;
  float* dh;                  // (B, U), dc: what later steps ask of the state
  float* dc;
  float* through;             // (B, U): dp W_hh before the mask
  float* dpeephole;           // sums over rows, one set a member: (members, ...)
  float* dnorm_hh;
  float* dnorm_c;
  float* dnorm_c_bias;
};

struct RecurrenceKernels {
  int64_t lanes, deep;  // deep: numbers in a cell
  Panels (*panels)(int64_t inner_blocks, int64_t inner, int64_t blocks, int64_t units);
  int64_t (*packed_size)(const Panels&);
  // Panels [first, last); the element (k, column) is weight[k * by_row + column * by_column].
  void (*pack)(const Panels&, const float* weight, int64_t by_row, int64_t by_column, float* packed, int64_t first, int64_t last);
  // y (rows, y_step) = x (rows, inner), as cells, times the matrix, added to y unless that is fresh.
  void (*product)(const Panels&, const float* packed, int64_t rows, const float* x, int64_t x_step, float* y, int64_t y_step, bool fresh);
  // c (end - begin of its rows) += a' b over `rows` rows, or = where it is fresh; to[m] += the sum of a's column m.
  int64_t (*outer_scratch)(int64_t columns);
  void (*outer)(int64_t rows, const float* a, int64_t a_step, int64_t begin, int64_t end, const float* b, int64_t b_step, int64_t columns,
      float* c, bool fresh, float* scratch);
  void (*add_up)(int64_t rows, const float* a, int64_t a_step, int64_t begin, int64_t end, float* to);
  // The input's part of the gates of steps [from, to): as `forward`, below. x_seen: room for the cells of the rows of one step.
  void (*drive)(const Recurrence&, int64_t from, int64_t to, int64_t begin, int64_t end, int64_t first, int64_t last, float* x_seen);
  // Numbers as cells, perhaps with a factor: rows of `width` that lie x_step apart.
  void (*as_cells)(int64_t rows, int64_t width, const float* x, int64_t x_step, const float* factor, float* cells, int64_t cells_step);
  // Layer norm of whole rows: gates = (x - mean) / deviation * gain + bias, over all numbers, or, grouped, over 2/3 of them and the rest.
  // The moments lie four a row. Backward in place, d becoming the gradient of x; dgain grows.
  void (*normalise)(int64_t rows, int64_t numbers, bool grouped, const float* x, const float* gain, const float* bias, float* gates,
      float* moments);
  void (*normalise_back)(int64_t rows, int64_t numbers, bool grouped, const float* x, const float* gain, const float* moments, float* d,
      float* dgain);
  // Step t of the rows [begin, end), the units of the panels [first, last).
  void (*forward)(const Recurrence&, int64_t t, int64_t begin, int64_t end, int64_t first, int64_t last);
  // The gradients of the gates; then, when those of all units are there, dh of the step before.
  void (*backward_gates)(const Recurrence&, const RecurrenceBack&, int64_t t, int64_t begin, int64_t end, int64_t first, int64_t last,
      int64_t member);
  void (*backward_state)(const Recurrence&, const RecurrenceBack&, int64_t t, int64_t begin, int64_t end, int64_t first, int64_t last);
};

const RecurrenceKernels& avx512bf16_recurrence();  // where there is TWOFOLD_BF16 (convolution_table.h)

}  // namespace twofold
