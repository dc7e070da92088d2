# Chapter of engine.pyx: processors that somebody listens to.

cdef void release_tap(vp_t* vp) noexcept:
    if vp.tap != NULL:
        free(vp.tap.records)
        free(vp.tap)
        vp.tap = NULL


cdef int start_tap(VirtualProcessor self) except -1:
    cdef tap_t* tap
    if self.vp.tap != NULL:
        return 0
    if self.scheduler is None:
        raise RuntimeError("this virtual processor does not exist any more")
    self.scheduler.count_taps(1)
    tap = <tap_t*>calloc(1, sizeof(tap_t))
    if tap != NULL:
        tap.capacity = TAP_CAPACITY
        tap.records = <record_t*>malloc(TAP_CAPACITY * sizeof(record_t))
    if tap == NULL or tap.records == NULL:
        free(tap)
        self.scheduler.count_taps(-1)
        raise MemoryError("the host has no memory for a tap")
    self.vp.tap = tap
    self.vp.empty_tlb = &empty_tlb
    select_tlb(self.vp)
    return 0


cdef int stop_tap(VirtualProcessor self) except -1:
    if self.vp.tap == NULL:
        return 0
    if self.vp.tap.count:
        self.take_noted(taken_records(self.vp))
    if self.scheduler is not None:
        self.scheduler.count_taps(-1)
    release_tap(self.vp)
    select_tlb(self.vp)
    return 0


cdef bytes taken_records(vp_t* vp):
    """What was noted since the last time."""
    cdef bytes records
    if vp.tap == NULL:
        return b""
    if vp.tap.lost:
        vp.tap.lost = 0
        raise MemoryError("the host had no memory for the accesses of a virtual processor: some are missing")
    records = (<const char*>vp.tap.records)[:vp.tap.count * sizeof(record_t)]
    vp.tap.count = 0
    return records
