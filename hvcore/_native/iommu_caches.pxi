# Chapter of iommu.pyx: the caches by name, their geometry and their counts.

Geometry = namedtuple("Geometry", "sets associativity policy seed", defaults=(1, "lru", 1))
Geometry.__doc__ = """How many sets of how many ways, which policy of hvcore.experiments.Structure, and its seed."""

CACHE_NAMES = ("contexts", "pasids", "iotlb", "pde", "pdpte", "pml4e", "pml5e", "interrupts")
DEFAULT_CACHES = {
    # Direct-mapped where every request looks: nothing but a compare. Intel publishes no sizes.
    "contexts": Geometry(256), "pasids": Geometry(256), "iotlb": Geometry(2048), "interrupts": Geometry(256),
    "pde": Geometry(4, 8), "pdpte": Geometry(4, 4), "pml4e": Geometry(2, 4), "pml5e": Geometry(1, 4),
}
"""What a unit has unless it is told otherwise."""

cdef enum:
    CONTEXT_WORDS = (sizeof(context_t) + 7) // 8
    SETS_MOST = 1 << 24


cdef cache_t* cache_named(unit_t* unit, name) noexcept:
    if name == "contexts":
        return &unit.contexts
    if name == "pasids":
        return &unit.pasids
    if name == "iotlb":
        return &unit.iotlb
    if name == "interrupts":
        return &unit.interrupts
    return &unit.walks[("pde", "pdpte", "pml4e", "pml5e").index(name) + 2]


cdef tuple counts_of(const cache_t* cache):
    """Every fill took an empty entry or evicted one, and what came in and is not there any more was invalidated."""
    return (cache.lookups, cache.lookups - cache.misses, cache.misses,
            cache.fills - cache.invalidations - cache_held(cache), cache.invalidations)


cdef int place_caches(RemappingUnit self, caches) except -1:
    """Make the caches of a dictionary; None: none of them."""
    cdef cache_t* cache
    cdef u32 i
    layouts = []
    if caches is None:
        return 0
    for name, geometry in caches.items():
        if name not in CACHE_NAMES:
            raise ValueError(f"caches must have keys of {', '.join(CACHE_NAMES)}, not {name!r}")
        if geometry is None:
            continue
        if not all(hasattr(geometry, field) for field in Geometry._fields):
            raise TypeError(f"{name} must be a Geometry (hvcore.iommu.geometry makes them of texts), not {geometry!r}")
        sets, ways = geometry.sets, geometry.associativity
        if not (1 <= sets <= SETS_MOST and 1 <= ways <= SETS_MOST and sets * ways <= SETS_MOST):
            raise ValueError(f"{name} must have 1 to {SETS_MOST} entries, not {sets} sets of {ways}")
        if geometry.policy not in POLICIES:
            raise ValueError(f"the policy of {name} must be one of {', '.join(POLICIES)}, not {geometry.policy!r}")
        cache = cache_named(&self.unit, name)
        cache.width = CONTEXT_WORDS if name in ("contexts", "pasids") else 1 if name == "iotlb" else 2
        cache.entries = sets * ways
        cache.exists = True
        cache.words = <u64*>self.take(cache.entries * cache.width * 8, 0)
        if ways == 1 and sets & (sets - 1) == 0:
            cache.mask = sets - 1
            cache.keys = <u64*>self.take(cache.entries * 8, 0xFF)
        else:
            layouts.append((name, sets, ways, POLICIES.index(geometry.policy), geometry.seed, False))
    self.structures = ModelCore(layouts, [], [], [], (1, 0, []), (0, 0, []), (0, True, 12, 12, 0))
    for i in range(len(layouts)):
        cache_named(&self.unit, layouts[i][0]).structure = &self.structures.model.structures[i]
    return 0
