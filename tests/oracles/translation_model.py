"""The models of TLBs and walk caches once more, as plainly as Python says it: lists of ways, dicts of nodes, no speed.

Written from docs/models.md. One access at a time; every structure is asked for the page number that it would see.
"""

from __future__ import annotations

from collections import Counter, defaultdict

MASK = (1 << 64) - 1
ADDRESS_BITS = 57


class Ways:
    """One set: what each way holds, None for nothing, and the policy's state in the plainest form."""

    def __init__(self, ways, policy, draw):
        self.held, self.policy, self.draw = [None] * ways, policy, draw
        self.order = []  # ways by age, oldest first: of the last use for LRU, of the fill for FIFO
        self.used = [False] * ways  # NRU
        self.distance = [3] * ways  # SRRIP
        self.points = defaultdict(int)  # tree: path of a node -> the half that its bit points to

    def look_up(self, key):
        """True: a hit. A miss fills."""
        if key in self.held:
            way = self.held.index(key)
            if self.policy == "lru":
                self.order.remove(way)
                self.order.append(way)
            elif self.policy == "srrip":
                self.distance[way] = 0
            self.mark(way)
            return True
        way = self.held.index(None) if None in self.held else self.victim()
        self.held[way] = key
        if way in self.order:
            self.order.remove(way)
        self.order.append(way)
        self.distance[way] = 2
        self.used[way] = False
        self.mark(way)
        return False

    def mark(self, way):
        if self.policy == "nru":
            self.used[way] = True
            if all(self.used):
                self.used = [other == way for other in range(len(self.used))]
        elif self.policy == "tree-plru":
            low, high, path = 0, len(self.held), ()
            while high - low > 1:
                middle = (low + high) // 2
                half = int(way >= middle)
                self.points[path] = 1 - half
                low, high = (middle, high) if half else (low, middle)
                path += (half,)

    def victim(self):
        if self.policy in ("lru", "fifo"):
            return self.order[0]
        if self.policy == "nru":
            return self.used.index(False) if False in self.used else 0
        if self.policy == "srrip":
            while 3 not in self.distance:
                self.distance = [value + 1 for value in self.distance]
            return self.distance.index(3)
        if self.policy == "random":
            return self.draw() % len(self.held)
        low, high, path = 0, len(self.held), ()
        while high - low > 1:
            half = self.points[path]
            low, high = ((low + high) // 2, high) if half else (low, (low + high) // 2)
            path += (half,)
        return low

    def drop(self, key):
        way = self.held.index(key)
        self.held[way] = None
        if way in self.order:
            self.order.remove(way)
        self.used[way], self.distance[way] = False, 3


class Cache:
    """Sets of ways; counts its look-ups and misses."""

    def __init__(self, structure):
        self.ways, self.policy = structure.associativity, structure.policy
        self.sets, self.latency, self.state = structure.sets, structure.latency, structure.seed
        self.count = Counter()
        self.empty()

    def draw(self):
        self.state ^= self.state >> 12
        self.state ^= self.state << 25 & MASK
        self.state ^= self.state >> 27
        return (self.state * 0x2545F4914F6CDD1D & MASK) >> 32

    def empty(self):
        self.content = [Ways(self.ways, self.policy, self.draw) for _ in range(self.sets)]

    def look_up(self, page, asid=0, size=3):
        self.count["lookups"] += 1
        hit = self.content[page % self.sets].look_up((page, asid, size))
        self.count["misses"] += not hit
        return hit

    def invalidate(self, wanted):
        """Drop the keys that `wanted` says."""
        for ways in self.content:
            for key in [key for key in ways.held if key is not None and wanted(key)]:
                ways.drop(key)
                self.count["invalidations"] += 1

    def keys(self):
        return sorted(key for ways in self.content for key in ways.held if key is not None)


class Dimension:
    def __init__(self, levels, caches, latency):
        self.levels, self.caches, self.latency, self.references = levels, caches, latency, Counter()

    def walk(self, address, leaf, asid):
        """(tables that are read, highest first; cycles of the look-ups)"""
        cycles = 0
        for table in range(leaf + 1, self.levels + 1):
            cache = self.caches.get(table)
            if cache:
                cycles += cache.latency
                if cache.look_up(address >> (12 + 9 * (table - 1)), asid):
                    return range(table - 1, leaf - 1, -1), cycles
        return range(self.levels, leaf - 1, -1), cycles

    def read(self, table):
        self.references[table] += 1
        return self.latency


class Reference:
    """A TranslationModel's parameters as lists; run() takes records and gives an outcome for each."""

    def __init__(self, model):
        arguments = model._arguments
        caches = {one.name: Cache(one) for one in model.structures}
        self.caches = caches
        self.first = {(kind, size): caches[name] for kind, size, name, _ in arguments[1]}
        self.second = {(kind, size): caches[name] for kind, size, name, _ in arguments[2]}
        self.nested_tlb = {size: caches[name] for size, name, _ in arguments[3]}
        dimensions = [
            Dimension(levels, {table: caches[name] for table, name, _ in rows}, latency)
            for levels, latency, rows in arguments[4:6]
        ]
        self.guest, self.nested = dimensions
        self.prefetch, self.tagged, self.shift, self.nested_shift, self.table_shift = arguments[6]
        self.of_guest = [*self.first.values(), *self.second.values(), *self.guest.caches.values()]
        self.asid, self.frames, self.used = 0, {}, Counter()
        self.count = Counter()

    def flush(self):
        for cache in self.of_guest:
            cache.invalidate(lambda key: True)
            cache.empty()

    def frame(self, key, region, shift):
        if key not in self.frames:
            self.frames[key] = self.used[region]
            self.used[region] += 1
        return (region << 46) + self.frames[key] * (1 << shift)

    def nested_references(self, gpa, shift):
        """(entries read, cycles) to translate one guest-physical address."""
        size = size_of(shift)
        tlb, cycles = self.nested_tlb.get(size), 0
        if tlb:
            cycles = tlb.latency
            if tlb.look_up(gpa >> shift, 0, size):
                return 0, cycles
        tables, walked = self.nested.walk(gpa, min(size + 1, self.nested.levels), 0)
        return len(tables), cycles + walked + sum(self.nested.read(table) for table in tables)

    def walk(self, address, asid, shift, nested_shift, gpa):
        leaf = min(size_of(shift) + 1, self.guest.levels)
        tables, cycles = self.guest.walk(address, leaf, asid)
        nested = 0
        if self.nested.levels:
            for table in tables:
                entry = self.frame((table, address >> (12 + 9 * table), asid), 3, 12)
                entry += (address >> (12 + 9 * (table - 1)) & 511) * 8
                more, waited = self.nested_references(entry, self.table_shift or nested_shift)
                nested, cycles = nested + more, cycles + waited
            if gpa is None:
                gpa = self.frame((0, address >> shift, asid, size_of(shift)), size_of(shift), shift)
                gpa += address & ((1 << shift) - 1)
            more, waited = self.nested_references(gpa, nested_shift)
            nested, cycles = nested + more, cycles + waited
        cycles += sum(self.guest.read(table) for table in tables)
        return len(tables), nested, cycles

    def access(self, address, kind, asid, shift, nested_shift, gpa=None):
        """(level, guest references, nested references, cycles)"""
        address &= (1 << ADDRESS_BITS) - 1
        shift, nested_shift = shift or self.shift, nested_shift or self.nested_shift
        if kind > 3 and asid != 0xFFFF and not self.tagged and asid != self.asid:
            return 0, 0, 0, 0
        if kind < 4 and asid != self.asid:
            self.asid = asid
            if not self.tagged:
                self.flush()
        everything = asid == 0xFFFF or not self.tagged
        asid = asid if self.tagged else 0
        if kind == 4:
            if not everything:
                for cache in set(self.of_guest):
                    cache.invalidate(lambda key: key[1] == asid)
            else:
                self.flush()
            return 0, 0, 0, 0
        if kind == 5:
            pages = [(address >> (12 + 9 * size), asid, size) for size in range(3)]
            for cache in {*self.first.values(), *self.second.values()}:
                cache.invalidate(lambda key: key in pages)
            for cache in self.guest.caches.values():
                cache.invalidate(lambda key: key[1] == asid)
            return 0, 0, 0, 0
        size, page = size_of(shift), address >> shift
        first, second = self.first.get((kind, size)), self.second.get((kind, size))
        cycles = first.latency if first else 0
        if first and first.look_up(page, asid, size):
            return 0, 0, 0, cycles
        if second:
            cycles += second.latency
            if second.look_up(page, asid, size):
                return 1, 0, 0, cycles
        self.count["walks"] += 1
        guest, nested, waited = self.walk(address, asid, shift, nested_shift, gpa)
        for following in range(page + 1, page + 1 + self.prefetch):
            if not second or following << shift >= 1 << ADDRESS_BITS:
                break
            before = dict(second.count)
            hit = second.look_up(following, asid, size)
            second.count.update({"lookups": -1, "misses": -(not hit)})
            assert before["lookups"] == second.count["lookups"]
            if not hit:
                self.count["prefetch_walks"] += 1
                more = self.walk(following << shift, asid, shift, nested_shift, gpa)
                self.count["prefetch_references"] += more[0] + more[1]
        return 2, guest, nested, cycles + waited

    def run(self, records):
        columns = ("address", "kind", "asid", "page_shift", "nested_page_shift")
        return [self.access(*row) for row in zip(*(records[name].tolist() for name in columns), strict=True)]


def size_of(shift):
    return 0 if shift < 21 else 1 if shift < 30 else 2
