// Linear scans y_i = x_i + a_i y_{i-1} down the columns of X (batch, n, k), decays a (heads, n), heads = batch or 1.
//
// The rows are cut into tiles. A block has blockDim.x columns of one tile, every thread a run of SPAN rows of one
// column. A run acts on what enters it as y -> factor y + total, and so does a tile: `scan_tiles` writes these maps,
// which are themselves a linear scan, one row a tile; `scan_rows` then writes the rows of Y, given what enters each
// tile. Sums have one fixed order. States are held in double precision: the scan is bound by memory all the same.
//
// With `upper` set the scan runs from the last row to the first, y_i = x_i + a_{i+1} y_{i+1}: the transposed mask.

// What acts on a thread's run before it, as a map: the runs of the tile above it. Invariant of the doubling: after the
// step with distance d, (factor, total) of run r composes the maps of the last min(r + 1, 2 d) runs up to r.
__device__ void compose_runs(double* factor, double* total) {
    int own = threadIdx.y * blockDim.x + threadIdx.x;
    for (int d = 1; d < blockDim.y; d *= 2) {
        double f = factor[own], t = total[own];
        bool has = (int)threadIdx.y >= d;
        if (has) {
            t += f * total[own - d * blockDim.x];
            f *= factor[own - d * blockDim.x];
        }
        __syncthreads();  // all have read what others are about to change
        if (has) {
            factor[own] = f;
            total[own] = t;
        }
        __syncthreads();  // all have written what others are about to read
    }
}

// Row of the i-th step of a scan, and the decay into it; nothing enters the first.
__device__ __forceinline__ long long row_of(long long i, long long n, int upper) { return upper ? n - 1 - i : i; }
__device__ __forceinline__ double decay_of(const double* a, long long i, long long n, int upper) {
    return i == 0 ? 0.0 : a[upper ? n - i : i];
}

__device__ void own_run(const REAL* x, const double* a, long long first, long long n, int k, int upper, bool has,
                        double* factor, double* total) {
    double f = 1.0, t = 0.0;
    for (long long i = first; has && i < min(first + SPAN, n); ++i) {
        double decay = decay_of(a, i, n, upper);
        t = (double)x[row_of(i, n, upper) * k] + decay * t;
        f *= decay;
    }
    int own = threadIdx.y * blockDim.x + threadIdx.x;
    factor[own] = f;
    total[own] = t;
    __syncthreads();
    compose_runs(factor, total);
}

// Of every tile: factors (heads, tiles) and totals (batch, tiles, k).
extern "C" __global__ void scan_tiles(const REAL* X, const double* decay, double* factors, double* totals, int batch,
                                      int heads, long long n, int k, int upper) {
    __shared__ double factor[THREADS], total[THREADS];
    int column = blockIdx.y * blockDim.x + threadIdx.x, tiles = gridDim.x;
    long long first = ((long long)blockIdx.x * blockDim.y + threadIdx.y) * SPAN;
    bool has = column < k;
    for (long long b = blockIdx.z; b < batch; b += gridDim.z) {
        long long h = heads > 1 ? b : 0;
        own_run(X + b * n * k + column, decay + h * n, first, n, k, upper, has, factor, total);
        if (threadIdx.y == blockDim.y - 1 && has) {
            int own = threadIdx.y * blockDim.x + threadIdx.x;
            totals[(b * tiles + blockIdx.x) * k + column] = total[own];
            if (column == 0 && (heads > 1 || b == 0)) factors[h * tiles + blockIdx.x] = factor[own];
        }
    }
}

// Y (batch, n, k); what enters tile t is row t - 1 of `entering` (batch, tiles, k), the scan of the totals.
extern "C" __global__ void scan_rows(const REAL* X, const double* decay, const double* entering, REAL* Y, int batch,
                                     int heads, long long n, int k, int upper) {
    __shared__ double factor[THREADS], total[THREADS];
    int column = blockIdx.y * blockDim.x + threadIdx.x, tiles = gridDim.x;
    long long first = ((long long)blockIdx.x * blockDim.y + threadIdx.y) * SPAN;
    bool has = column < k;
    for (long long b = blockIdx.z; b < batch; b += gridDim.z) {
        const REAL* x = X + b * n * k + column;
        const double* a = decay + (heads > 1 ? b : 0) * n;
        own_run(x, a, first, n, k, upper, has, factor, total);
        double y = blockIdx.x && has ? entering[(b * tiles + blockIdx.x - 1) * k + column] : 0.0;
        if (threadIdx.y) {
            int above = (threadIdx.y - 1) * blockDim.x + threadIdx.x;
            y = total[above] + factor[above] * y;
        }
        for (long long i = first; has && i < min(first + SPAN, n); ++i) {
            long long row = row_of(i, n, upper) * k;
            y = (double)x[row] + decay_of(a, i, n, upper) * y;
            Y[b * n * k + row + column] = (REAL)y;
        }
        __syncthreads();  // all have read what the next operand writes over
    }
}
