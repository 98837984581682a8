// Random walks on a graph in CSR form. Every random word is a function of a key and of (step, draw, walk), by
// Philox4x32-10 (Salmon et al., 2011), and every decision is taken in integers: the walks are those of the CPU.
// paths (starts * walks, length) receives nodes, -1 where a walk has ended.

struct Words {
    unsigned stop, high, low, coin;
};

__device__ __forceinline__ Words words_of(unsigned step, unsigned draw, unsigned long long walk, unsigned long long key) {
    unsigned c0 = step, c1 = draw, c2 = (unsigned)walk, c3 = (unsigned)(walk >> 32);
    unsigned k0 = (unsigned)key, k1 = (unsigned)(key >> 32);
    for (int round = 0; round < 10; ++round) {
        unsigned long long p = 0xD2511F53ull * c0, q = 0xCD9E8D57ull * c2;
        c0 = (unsigned)(q >> 32) ^ c1 ^ k0;
        c1 = (unsigned)q;
        c2 = (unsigned)(p >> 32) ^ c3 ^ k1;
        c3 = (unsigned)p;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {c0, c1, c2, c3};
}

// The neighbour of v that words choose: floor(u degree) for a u of 64 bits, then the alias table where there is one.
__device__ __forceinline__ int chosen(const long long* indptr, const int* indices, const unsigned* threshold,
                                      const int* alias, int weighted, int v, Words w) {
    unsigned long long degree = (unsigned long long)(indptr[v + 1] - indptr[v]);
    long long edge = indptr[v] + (long long)((w.high * degree + ((w.low * degree) >> 32)) >> 32);
    if (weighted && w.coin >= threshold[edge]) edge = indptr[v] + alias[edge];
    return indices[edge];
}

__device__ __forceinline__ bool moves(const long long* indptr, int v) { return v >= 0 && indptr[v + 1] > indptr[v]; }

// One thread a walk.
extern "C" __global__ void walk_apart(const long long* indptr, const int* indices, const unsigned* threshold,
                                      const int* alias, const long long* starts, int* paths, long long count, int walks,
                                      int length, int weighted, unsigned long long first, unsigned stop, unsigned draw,
                                      unsigned long long key) {
    long long walk = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (walk >= count) return;
    int v = (int)starts[walk / walks];
    int* path = paths + walk * length;
    path[0] = v;
    for (int step = 1; step < length; ++step) {
        if (moves(indptr, v)) {
            Words w = words_of(step, draw, first + walk, key);
            v = w.stop < stop ? -1 : chosen(indptr, indices, threshold, alias, weighted, v, w);
        } else {
            v = -1;
        }
        path[step] = v;
    }
}

// A walk's place among those of its start that are where it is, and the first of these.
struct Meeting {
    int rank, size, leader;
};

// The fraction rank / size of a full turn, of 2^32.
__device__ __forceinline__ unsigned turn(Meeting m) { return (unsigned)(((unsigned long long)m.rank << 32) / m.size); }

// One block a start: walks that meet share the words of the first of them, turned by their ranks. A step has two
// phases: who stays is in `left` before anyone moves, and all have moved before anyone looks again.
extern "C" __global__ void walk_repelled(const long long* indptr, const int* indices, const unsigned* threshold,
                                         const int* alias, const long long* starts, int* paths, int* left, int walks,
                                         int length, int weighted, unsigned long long first, unsigned stop,
                                         unsigned draw, unsigned long long key) {
    long long begin = (long long)blockIdx.x * walks;
    int* path = paths + begin * length;
    int* at = left + begin;
    for (int r = threadIdx.x; r < walks; r += blockDim.x) path[(long long)r * length] = (int)starts[blockIdx.x];
    __syncthreads();  // all are at their start
    for (int step = 1; step < length; ++step) {
        for (int r = threadIdx.x; r < walks; r += blockDim.x) {
            int v = path[(long long)r * length + step - 1];
            Meeting alive = {0, 0, -1};
            for (int other = 0; other < walks; ++other) {
                if (!moves(indptr, path[(long long)other * length + step - 1])) continue;
                if (alive.leader < 0) alive.leader = other;
                alive.rank += other < r;
                ++alive.size;
            }
            if (moves(indptr, v) && words_of(step, draw, first + begin + alive.leader, key).stop + turn(alive) < stop) v = -1;
            at[r] = moves(indptr, v) ? v : -1;
        }
        __syncthreads();  // it is known who stays
        for (int r = threadIdx.x; r < walks; r += blockDim.x) {
            int v = at[r];
            if (v >= 0) {
                Meeting here = {0, 0, -1};
                for (int other = 0; other < walks; ++other) {
                    if (at[other] != v) continue;
                    if (here.leader < 0) here.leader = other;
                    here.rank += other < r;
                    ++here.size;
                }
                Words w = words_of(step, draw, first + begin + here.leader, key);
                w.high += turn(here);
                w.coin = words_of(step, draw, first + begin + r, key).coin;
                v = chosen(indptr, indices, threshold, alias, weighted, v, w);
            }
            path[(long long)r * length + step] = v;
        }
        __syncthreads();  // all have moved
    }
}
