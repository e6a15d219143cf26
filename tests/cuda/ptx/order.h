// Who has seen what: the memory model of PTX, as far as kernels use it.
//
// Each thread has a vector clock. A barrier joins the clocks of its block. A strong write that
// releases hands the writer's clock on, a strong read that acquires takes it over; with a fence
// before (after) it, a relaxed write (read) does the same.
//
// Two accesses that no clock orders, one of them a store, are a race, unless both are strong and
// of the same bytes. A strong read returns any value that nothing it has seen forbids, so that
// code which relies on more than the model promises gives wrong numbers.
#pragma once
#include <algorithm>
#include <random>
#include <unordered_map>
#include <vector>
#include "machine.h"

typedef std::vector<u32> Clock;
inline void join(Clock& into, const Clock& other) {
  if (into.size() < other.size()) into.resize(other.size());
  for (size_t i = 0; i < other.size(); i++) into[i] = std::max(into[i], other[i]);
}

struct Access { u32 thread, time; int line; bool store; u64 strong; };  // strong: its address and size, or 0
struct Word { std::vector<Access> accesses; int constant_load = 0, any_store = 0; };

struct Version { u64 value; u32 thread, time; Clock released; };
struct Cell {  // of memory that strong accesses use
  u32 size = 0, dropped = 0;  // how many versions are no longer kept
  std::vector<Version> versions;
  std::unordered_map<u32, u32> seen;  // thread -> the newest version that it knows
};

class Model {
 public:
  std::vector<Clock> now, fenced, awaited;  // a thread's clock; at its last fence; what a fence would acquire
  std::unordered_map<u64, Word> global;
  std::vector<std::vector<Word>> shared;
  std::unordered_map<u64, Cell> cells;

  Model(u32 threads, u32 blocks, u32 shared_bytes)
      : now(threads, Clock(threads)), fenced(threads), awaited(threads),
        shared(blocks, std::vector<Word>(shared_bytes / 4 + 1)) {
    for (u32 i = 0; i < threads; i++) now[i][i] = 1;
  }

  bool sees(u32 thread, u32 other, u32 time) const { return other == thread || now[thread][other] >= time; }

  // Note an access to a word of 4 bytes; the access that it races with, or null.
  const Access* note(Word& word, const Access& a) {
    static Access found;
    const Access* race = nullptr;
    size_t kept = 0;
    for (const Access& b : word.accesses) {
      const bool before = sees(a.thread, b.thread, b.time);
      const bool both_strong = a.strong && a.strong == b.strong;
      if (!before && !race && (a.store || b.store) && !both_strong) { found = b; race = &found; }
      // Whatever races with b races with a, or has seen b by way of a: b need not be kept.
      const bool covers = before && (!a.strong || b.strong) && (a.store || (a.thread == b.thread && !b.store));
      if (!covers) word.accesses[kept++] = b;
    }
    word.accesses.resize(kept);
    word.accesses.push_back(a);
    return race;
  }

  void barrier(u32 first, u32 count) {
    Clock all;
    for (u32 i = first; i < first + count; i++) join(all, now[i]);
    for (u32 i = first; i < first + count; i++) { now[i] = all; now[i][i]++; }
  }

  void fence(u32 thread) {
    join(now[thread], awaited[thread]);
    fenced[thread] = now[thread];
    now[thread][thread]++;
  }

  Cell& cell(u64 address, u32 size, u64 value) {
    Cell& c = cells[address];
    if (c.size != size || c.versions.empty() || c.versions.back().value != value) {  // others have written here
      c = Cell();
      c.size = size;
      c.versions.push_back({value, 0, 0, Clock()});
    }
    return c;
  }

  void acquire(u32 thread, const Version& version, int order) {
    join(order & ACQUIRE ? now[thread] : awaited[thread], version.released);
  }

  u64 read(Cell& c, u32 thread, int order, std::mt19937_64& random) {
    u32 least = c.seen.count(thread) ? std::max(c.seen[thread], c.dropped) : c.dropped;
    const u32 last = c.dropped + c.versions.size() - 1;
    for (u32 i = last; i > least; i--)
      if (sees(thread, c.versions[i - c.dropped].thread, c.versions[i - c.dropped].time)) least = i;
    const u32 chosen = random() & 1 ? last : least + random() % (last - least + 1);
    c.seen[thread] = chosen;
    acquire(thread, c.versions[chosen - c.dropped], order);
    return c.versions[chosen - c.dropped].value;
  }

  void write(Cell& c, u32 thread, u64 value, int order, bool modifies) {
    Version made{value, thread, now[thread][thread], order & RELEASE ? now[thread] : fenced[thread]};
    if (modifies) {  // goes on with the release before it
      acquire(thread, c.versions.back(), order);
      join(made.released, c.versions.back().released);
    }
    c.versions.push_back(made);
    if (c.versions.size() > 8) { c.versions.erase(c.versions.begin()); c.dropped++; }
    c.seen[thread] = c.dropped + c.versions.size() - 1;
    now[thread][thread]++;
  }
};
