// What translated kernels call: memory, fences, and the places where a thread waits.
#pragma once
#include "values.h"

enum State { READY, AT_BARRIER, AT_SHUFFLE, POLLING, ENDED };
enum Space { GLOBAL, SHARED, CONSTANT };  // CONSTANT: global, through a cache that nothing invalidates
enum Order { RELAXED = 0, ACQUIRE = 1, RELEASE = 2, BOTH_WAYS = 3 };
enum Shuffle { UP, DOWN, BFLY, IDX, SYNC };  // SYNC: bar.warp.sync, no value

// A thread between two waits; its registers follow.
struct Thread {
  int place = 0, line = 0;  // where to go on, and the line of PTX there
  State state = READY;
  u32 id = 0, block = 0, number = 0;  // in its block; its block, and itself, among those that run
  u32 block_x = 0, block_y = 0;
  Shuffle kind = SYNC;
  u32 value = 0, lane = 0, limits = 0, members = 0;
  bool valid = false;
};

struct Range { u64 low, high; };

// A launch, as Python passes it.
struct Task {
  u32 grid_x, grid_y, threads, shared_bytes;
  u32 together, races, range_count, room;
  u64 seed;
  const u64* words;
  const Range* ranges;
  char* said;
  u64* counts;
};
struct Launch { const Task& task; };

typedef void (*Body)(Launch&, Thread&);
extern "C" int run_launch(const Task* task, size_t size, Body body);

void load(Launch&, Thread&, Space, u64 address, void* into, u32 size, int line);
void store(Launch&, Thread&, Space, u64 address, const void* from, u32 size, int line);
void load_strong(Launch&, Thread&, u64 address, void* into, u32 size, int order, int line);
void store_strong(Launch&, Thread&, u64 address, const void* from, u32 size, int order, int line);
void fence(Launch&, Thread&);
void prefetch(Launch&, Thread&, u64 address, int line);  // of an address that is there

// Returns the old value; `change` makes the new one of it and of `given`.
typedef u64 (*Change)(u64 old, u64 given);
u64 modify(Launch&, Thread&, u64 address, u64 given, Change change, u32 size, int order, int line);
OP T op_exch(T, T given) { return given; }
template <class T, T (*F)(T, T)> u64 changed(u64 old, u64 given) { return (Unsigned<T>)F((T)old, (T)given); }

// Stop here, and go on when the scheduler says so.
#define WAIT(why, n, l) { t.state = why; t.place = n; t.line = l; return; case n:; }
