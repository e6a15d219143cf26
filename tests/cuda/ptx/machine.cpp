// Runs a launch: threads in random order, each until it has to wait.
//
// Every access is checked: bounds, alignment, shared memory that nobody has written, and races
// (order.h). So is that all lanes are there at a shuffle, and all threads at a barrier.
#include <cstdarg>
#include <cstdio>
#include <map>
#include <string>
#include "order.h"

namespace {
const u32 WARP = 32, MOST_FAULTS = 20, MOST_IDLE_ROUNDS = 400;
enum Count {  // as emulator.py names them
  LOADS, STORES, SHARED_LOADS, SHARED_STORES, STRONG_LOADS, STRONG_STORES, ATOMICS, FENCES, SHUFFLES,
  BARRIERS, TWICE
};

struct Machine : Launch {
  std::mt19937_64 random;
  std::vector<std::vector<char>> shared;
  std::vector<std::vector<bool>> written;  // bytes of shared memory
  Model* model = nullptr;
  std::vector<char> memory;
  size_t size;
  u32 blocks = 0, faults = 0, events = 0;
  std::map<std::pair<int, std::string>, int> seen;
  std::string said;

  Machine(const Task& given, size_t bytes) : Launch{given}, random(given.seed), size(bytes) {}
  ~Machine() { delete model; }
  Thread& thread(u32 i) { return *(Thread*)(memory.data() + i * size); }

  // Say a fault, once a line of PTX.
  void fault(const Thread& t, int line, const char* what, const char* more = "", ...) {
    faults++;
    if (said.size() > task.room / 2 || seen[{line, what}]++) return;
    char text[400];
    va_list values;
    va_start(values, more);
    vsnprintf(text, sizeof text, more, values);
    va_end(values);
    char where[100];
    snprintf(where, sizeof where, ", block (%u, %u) thread %u, PTX line %d", t.block_x, t.block_y,
             t.id, line);
    said += std::string(what) + where + (*text ? ": " : "") + text + "\n";
  }

  // The memory at an address, or null if it may not be touched.
  char* place(Thread& t, Space space, u64 address, u32 bytes, int line) {
    if (address % bytes) return fault(t, line, "misaligned", "%u bytes at %llx", bytes, address), nullptr;
    if (space == SHARED) {
      if (address + bytes <= task.shared_bytes && address < task.shared_bytes)
        return shared[t.block].data() + address;
      return fault(t, line, "outside shared memory", "byte %llu of %u", address, task.shared_bytes), nullptr;
    }
    for (u32 i = 0; i < task.range_count; i++)
      if (address >= task.ranges[i].low && address + bytes <= task.ranges[i].high) return (char*)address;
    return fault(t, line, "outside all arrays", "%u bytes at %llx", bytes, address), nullptr;
  }

  // Note an access for races. `same`: a store writes what is there.
  void note(Thread& t, Space space, u64 address, u32 bytes, bool is_store, bool strong, int line,
            bool same = false) {
    if (!model) return;
    const u64 unit = strong ? address << 8 | bytes : 0;
    for (u64 at = address / 4; at < (address + bytes + 3) / 4; at++) {
      Word& word = space == SHARED ? model->shared[t.block][at] : model->global[at];
      if (is_store) word.any_store = line;
      if (space == CONSTANT) word.constant_load = line;
      if (word.any_store && word.constant_load)
        fault(t, line, "stale", "ld.nc at line %d of what is stored at line %d", word.constant_load,
              word.any_store);
      const u32 time = model->now[t.number][t.number];
      const Access* other = model->note(word, {t.number, time, line, is_store, unit});
      if (!other) continue;
      const Thread& o = thread(other->thread);
      const bool one_warp = o.block == t.block && o.id / WARP == t.id / WARP;
      if (same && one_warp && other->store && other->line == line) {  // lanes of one instruction
        task.counts[TWICE]++;
        continue;
      }
      fault(t, line, "race", "%s of %s with the %s at line %d of block (%u, %u) thread %u",
            is_store ? "store" : "load", space == SHARED ? "shared memory" : "an array",
            other->store ? "store" : "load", other->line, o.block_x, o.block_y, o.id);
    }
  }

  void start(u32 first);
  bool step(Body body);
  bool warp(u32 first);
  bool barrier(u32 block);
  void run(Body body);
};
Machine& of(Launch& l) { return static_cast<Machine&>(l); }

void Machine::start(u32 first) {
  const u32 count = blocks * task.threads;
  shared.assign(blocks, std::vector<char>(task.shared_bytes, (char)0xff));
  written.assign(blocks, std::vector<bool>(task.shared_bytes));
  delete model;
  model = task.races ? new Model(count, blocks, task.shared_bytes) : nullptr;
  memory.assign(count * size, (char)0xa5);  // no register has a value
  for (u32 i = 0; i < count; i++) {
    Thread& t = *new (&thread(i)) Thread();
    t.number = i;
    t.block = i / task.threads;
    t.id = i % task.threads;
    t.block_x = (first + t.block) % task.grid_x;
    t.block_y = (first + t.block) / task.grid_x;
  }
}

// Exchange the values of a warp whose lanes are all there; whether something happened.
bool Machine::warp(u32 first) {
  const u32 count = std::min(WARP, task.threads - first % task.threads);
  u32 there = 0, able = 0, alike = 0;
  for (u32 i = 0; i < count; i++) {
    const Thread& t = thread(first + i);
    there += t.state == AT_SHUFFLE;
    able += t.state == READY || t.state == POLLING;
    alike += t.state == AT_SHUFFLE && t.place == thread(first).place;
  }
  if (!there || (able && there < count)) return false;
  if (alike < count || count < WARP) {
    u32 i = first;
    while (thread(i).state != AT_SHUFFLE) i++;
    fault(thread(i), thread(i).line, "lanes missing", "%u of %u are there", there, WARP);
    return false;
  }
  u32 found[WARP];
  bool valid[WARP];
  for (u32 i = 0; i < WARP; i++) {
    const Thread& t = thread(first + i);
    if (t.members != 0xffffffff) fault(t, t.line, "lanes left out", "mask %x", t.members);
    const u32 segment = t.limits >> 8 & 31, low = i & segment, most = low | (t.limits & 31 & ~segment);
    const s32 from = t.kind == UP ? (s32)(i - t.lane) : t.kind == DOWN ? i + t.lane
        : t.kind == BFLY ? i ^ t.lane : low | (t.lane & ~segment & 31);
    valid[i] = t.kind == UP ? from >= (s32)most : from <= (s32)most;
    found[i] = thread(first + (valid[i] ? from : i)).value;
  }
  if (thread(first).kind == SYNC && model) model->barrier(first, WARP);
  for (u32 i = 0; i < WARP; i++) {
    Thread& t = thread(first + i);
    t.value = found[i], t.valid = valid[i], t.state = READY;
  }
  task.counts[SHUFFLES]++;
  return true;
}

// Let a block go on whose threads are all at the barrier; whether something happened.
bool Machine::barrier(u32 block) {
  const u32 first = block * task.threads;
  u32 there = 0, ended = 0, alike = 0;
  for (u32 i = first; i < first + task.threads; i++) {
    there += thread(i).state == AT_BARRIER;
    ended += thread(i).state == ENDED;
    alike += thread(i).state == AT_BARRIER && thread(i).place == thread(first).place;
  }
  if (there && there + ended == task.threads && (ended || alike < there)) {
    u32 i = first;
    while (thread(i).state != AT_BARRIER) i++;
    fault(thread(i), thread(i).line, "threads missing", "%u of %u are at this barrier", there, task.threads);
    return false;
  }
  if (there < task.threads) return false;
  if (model) model->barrier(first, task.threads);
  for (u32 i = first; i < first + task.threads; i++) thread(i).state = READY;
  task.counts[BARRIERS]++;
  return true;
}

// Let each thread that can go on do so, some blocks left out; false once all have ended.
bool Machine::step(Body body) {
  const u32 count = blocks * task.threads;
  std::vector<u32> order(count), rests(blocks);
  for (u32 i = 0; i < count; i++) order[i] = i;
  for (u32& rest : rests) rest = random() % 4 == 0;
  std::shuffle(order.begin(), order.end(), random);
  for (u32 i : order) {
    Thread& t = thread(i);
    if ((t.state != READY && t.state != POLLING) || rests[t.block]) continue;
    events += t.state == READY;
    t.state = READY;
    body(*this, t);
    if (faults > MOST_FAULTS) return false;
  }
  bool left = false;
  for (u32 block = 0; block < blocks; block++) {
    for (u32 k = 0; k < task.threads; k += WARP) events += warp(block * task.threads + k);
    events += barrier(block);
  }
  for (u32 i = 0; i < count; i++) left |= thread(i).state != ENDED;
  return left && !faults;
}

void Machine::run(Body body) {
  const u32 all = task.grid_x * task.grid_y;
  blocks = task.together ? all : 1;
  for (u32 first = 0; first < all && !faults; first += blocks) {
    start(first);
    u32 idle = 0, before = events;
    while (step(body)) {
      idle = events == before ? idle + 1 : 0;
      before = events;
      if (idle < MOST_IDLE_ROUNDS) continue;
      for (u32 i = 0; i < blocks * task.threads; i++)
        if (thread(i).state != ENDED) fault(thread(i), thread(i).line, "deadlock");
      break;
    }
  }
  snprintf(task.said, task.room, "%s", said.c_str());
}
}  // namespace

void load(Launch& l, Thread& t, Space space, u64 address, void* into, u32 bytes, int line) {
  Machine& m = of(l);
  m.task.counts[space == SHARED ? SHARED_LOADS : LOADS]++;
  memset(into, 0xff, bytes);
  const char* from = m.place(t, space, address, bytes, line);
  if (!from) return;
  for (u32 i = 0; space == SHARED && i < bytes; i++)
    if (!m.written[t.block][address + i])
      m.fault(t, line, "shared memory without a value", "byte %llu", address + i);
  m.note(t, space, address, bytes, false, false, line);
  memcpy(into, from, bytes);
}

void store(Launch& l, Thread& t, Space space, u64 address, const void* from, u32 bytes, int line) {
  Machine& m = of(l);
  m.task.counts[space == SHARED ? SHARED_STORES : STORES]++;
  m.events++;
  char* into = m.place(t, space, address, bytes, line);
  if (!into) return;
  if (space == SHARED)
    for (u32 i = 0; i < bytes; i++) m.written[t.block][address + i] = true;
  m.note(t, space, address, bytes, true, false, line, !memcmp(into, from, bytes));
  memcpy(into, from, bytes);
}

void load_strong(Launch& l, Thread& t, u64 address, void* into, u32 bytes, int order, int line) {
  Machine& m = of(l);
  m.task.counts[STRONG_LOADS]++;
  memset(into, 0xff, bytes);
  const char* from = m.place(t, GLOBAL, address, bytes, line);
  if (!from) return;
  memcpy(into, from, bytes);
  if (!m.model) return;
  m.note(t, GLOBAL, address, bytes, false, true, line);
  u64 value = 0;
  memcpy(&value, from, bytes);
  value = m.model->read(m.model->cell(address, bytes, value), t.number, order, m.random);
  memcpy(into, &value, bytes);
}

void store_strong(Launch& l, Thread& t, u64 address, const void* from, u32 bytes, int order, int line) {
  Machine& m = of(l);
  m.task.counts[STRONG_STORES]++;
  m.events++;
  char* into = m.place(t, GLOBAL, address, bytes, line);
  if (!into) return;
  u64 old = 0, value = 0;
  memcpy(&old, into, bytes);
  memcpy(&value, from, bytes);
  memcpy(into, from, bytes);
  if (!m.model) return;
  m.note(t, GLOBAL, address, bytes, true, true, line);
  m.model->write(m.model->cell(address, bytes, old), t.number, value, order, false);
}

u64 modify(Launch& l, Thread& t, u64 address, u64 given, Change change, u32 bytes, int order, int line) {
  Machine& m = of(l);
  m.task.counts[ATOMICS]++;
  m.events++;
  char* at = m.place(t, GLOBAL, address, bytes, line);
  if (!at) return 0;
  u64 old = 0;
  memcpy(&old, at, bytes);
  const u64 value = change(old, given);
  memcpy(at, &value, bytes);
  if (m.model) {
    m.note(t, GLOBAL, address, bytes, true, true, line);
    m.model->write(m.model->cell(address, bytes, old), t.number, value, order, true);
  }
  return old;
}

void fence(Launch& l, Thread& t) {
  Machine& m = of(l);
  m.task.counts[FENCES]++;
  if (m.model) m.model->fence(t.number);
}

void prefetch(Launch& l, Thread& t, u64 address, int line) { of(l).place(t, GLOBAL, address, 1, line); }

int run_launch(const Task* task, size_t size, Body body) {
  const int direction = fegetround();
  fesetround(FE_TONEAREST);
  Machine machine(*task, size);
  machine.run(body);
  fesetround(direction);
  return machine.faults;
}
