// Runs CUDA C kernels on the CPU, to test them; one block at a time, in random order.
//
// Two engines. By default the threads of a block are fibers of one system thread: a seeded generator chooses which one
// goes on, up to its next barrier. With SM_THREADS each is a system thread, for the thread sanitizer to watch. Shared
// memory is filled with rubbish before every block, and a barrier that some thread never reaches is an error.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)

struct Index3 { unsigned x, y, z; };
static Index3 blockDim, gridDim;
using std::max;
using std::min;

static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((uint64_t)a * b) >> 32); }

// One block runs at a time, so a static variable is shared by its threads. The section lets us spoil all of them;
// under the address sanitizer they stay plain variables, which have red zones around them.
#ifdef __SANITIZE_ADDRESS__
#define __shared__ static
static void spoil_shared() {}
#else
#define __shared__ static __attribute__((section("block_shared")))
extern "C" unsigned char __start_block_shared[] __attribute__((weak, visibility("hidden")));
extern "C" unsigned char __stop_block_shared[] __attribute__((weak, visibility("hidden")));
static void spoil_shared() {
    for (unsigned char* p = __start_block_shared; p && p < __stop_block_shared; ++p) *p = 0xA5;
}
#endif

#ifdef SM_THREADS
#include <pthread.h>
#include <thread>
static thread_local Index3 threadIdx, blockIdx;
static pthread_barrier_t barrier;
static inline void __syncthreads() { pthread_barrier_wait(&barrier); }

template <class Kernel> bool run_block(Index3 block, unsigned count, std::mt19937&, Kernel kernel) {
    pthread_barrier_init(&barrier, nullptr, count);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < count; ++i)
        threads.emplace_back([=] {
            blockIdx = block;
            threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
            kernel();
        });
    for (auto& thread : threads) thread.join();
    return true;
}
#else
#include <ucontext.h>
static Index3 threadIdx, blockIdx;
enum State { READY, WAITING, DONE };
struct Fiber { ucontext_t context; std::vector<char> stack; State state; Index3 index; };
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static unsigned running;
static std::function<void()> work;

static void pause_as(State state) {
    fibers[running].state = state;
    swapcontext(&fibers[running].context, &scheduler);
}
static inline void __syncthreads() { pause_as(WAITING); }
static void fiber_main() { work(); pause_as(DONE); }

static void start(Fiber& fiber, unsigned i) {
    if (fiber.stack.empty()) fiber.stack.resize(1 << 16);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = &scheduler;
    fiber.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    fiber.state = READY;
    makecontext(&fiber.context, fiber_main, 0);
}

template <class Kernel> bool run_block(Index3 block, unsigned count, std::mt19937& random, Kernel kernel) {
    if (fibers.size() != count) { fibers.clear(); fibers.resize(count); }
    blockIdx = block;
    work = kernel;
    for (unsigned i = 0; i < count; ++i) start(fibers[i], i);
    std::vector<unsigned> order(count);
    std::iota(order.begin(), order.end(), 0u);
    for (;;) {
        std::shuffle(order.begin(), order.end(), random);
        for (unsigned i : order) {
            running = i;
            threadIdx = fibers[i].index;
            swapcontext(&scheduler, &fibers[i].context);
        }
        auto in = [](State state) { return [=](const Fiber& fiber) { return fiber.state == state; }; };
        if (std::all_of(fibers.begin(), fibers.end(), in(DONE))) return true;
        if (!std::all_of(fibers.begin(), fibers.end(), in(WAITING))) return false;
        for (auto& fiber : fibers) fiber.state = READY;
    }
}
#endif

template <class Kernel> int launch(const unsigned* grid, const unsigned* block, unsigned seed, Kernel kernel) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    std::mt19937 random(seed);
    std::vector<unsigned> blocks(grid[0] * grid[1] * grid[2]);
    std::iota(blocks.begin(), blocks.end(), 0u);
    std::shuffle(blocks.begin(), blocks.end(), random);
    for (unsigned b : blocks) {
        spoil_shared();
        Index3 index = {b % gridDim.x, b / gridDim.x % gridDim.y, b / (gridDim.x * gridDim.y)};
        if (!run_block(index, block[0] * block[1] * block[2], random, kernel)) return 1;
    }
    return 0;
}
