"""The hypercall interface: table.py says what exists, dispatch.py runs one call, guest.py is the guest's door.

One file per TLFS chapter has the handlers: partitions, pool, gpa, intercepts, processors, interrupts, ports.
"""
