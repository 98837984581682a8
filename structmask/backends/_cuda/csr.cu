// Sparse matrices in CSR form, times blocks of columns in row-major order: neighbouring threads have neighbouring
// columns, so that every row of the operand is read in one piece. Each sum is taken by one thread, or by lanes in a
// fixed tree, in the order of the stored entries.

__device__ __forceinline__ REAL row_sum(const int* indices, const REAL* values, const REAL* X, int begin, int end,
                                        int k, int column) {
    REAL sum = 0;
    for (int e = begin; e < end; ++e) sum += values[e] * X[(long long)indices[e] * k + column];
    return sum;
}

// Y (batch, m, k) = A X for X (operands, n, k) and the values (heads, nnz) of one pattern; operands and heads are batch
// or 1.
extern "C" __global__ void csr_product(const int* indptr, const int* indices, const REAL* values, const REAL* X, REAL* Y,
                                       int batch, int heads, int operands, int m, int n, int k, int nnz) {
    int row = blockIdx.x * blockDim.y + threadIdx.y, column = blockIdx.y * blockDim.x + threadIdx.x;
    if (row >= m || column >= k) return;
    for (long long b = blockIdx.z; b < batch; b += gridDim.z) {
        const REAL* a = values + (heads > 1 ? b : 0) * nnz;
        const REAL* x = X + (operands > 1 ? b : 0) * n * k;
        Y[(b * m + row) * k + column] = row_sum(indices, a, x, indptr[row], indptr[row + 1], k, column);
    }
}

// One term of a Chebyshev sum: old <- alpha A T + beta T - gamma old, and sums[f] += c[f, term] old for all functions f.
// T and old (n, k), sums (functions, n, k), c (functions, terms).
extern "C" __global__ void chebyshev_step(const int* indptr, const int* indices, const REAL* values, const REAL* T,
                                          REAL* old, REAL* sums, const REAL* c, int functions, int terms, int term,
                                          int n, int k, REAL alpha, REAL beta, REAL gamma) {
    int row = blockIdx.x * blockDim.y + threadIdx.y, column = blockIdx.y * blockDim.x + threadIdx.x;
    if (row >= n || column >= k) return;
    long long at = (long long)row * k + column;
    REAL next = alpha * row_sum(indices, values, T, indptr[row], indptr[row + 1], k, column) + beta * T[at];
    if (gamma != 0) next -= gamma * old[at];  // in the first step there is nothing in it
    old[at] = next;
    for (int f = 0; f < functions; ++f) sums[(long long)f * n * k + at] += c[(long long)f * terms + term] * next;
}

// The entries (batch, nnz) of F G^T at the stored positions, F (batch, m, r), G (batch, n, r): LANES threads an entry.
// Invariant of the halving: the first `width` lanes of an entry hold its whole sum between them.
extern "C" __global__ void sampled_product(const int* rows, const int* columns, const REAL* F, const REAL* G, REAL* S,
                                           int batch, int m, int n, int r, int nnz) {
    __shared__ REAL part[EDGES][LANES];
    int lane = threadIdx.x, edge = threadIdx.y;
    long long e = (long long)blockIdx.x * EDGES + edge;
    for (long long b = blockIdx.z; b < batch; b += gridDim.z) {
        REAL sum = 0;
        if (e < nnz)
            for (int j = lane; j < r; j += LANES)
                sum += F[(b * m + rows[e]) * r + j] * G[(b * n + columns[e]) * r + j];
        part[edge][lane] = sum;
        __syncthreads();  // all parts are there
        for (int width = LANES / 2; width > 0; width /= 2) {
            if (lane < width) part[edge][lane] += part[edge][lane + width];
            __syncthreads();  // half as many parts are there
        }
        if (lane == 0 && e < nnz) S[b * nnz + e] = part[edge][0];  // which no other lane of the next operand writes
    }
}
