# Step 5: how the child reaches us. Its accesses to one I/O port become messages on SINT0; a message port on SINT1
# and an event port on SINT2 are ours, and we connect both on its behalf, as a parent does.

open_channels:
        mov     edx, HV_INTERCEPT_ACCESS_READ | HV_INTERCEPT_ACCESS_WRITE
        call    set_io_intercept
        say     "[5] its I/O port "
        mov     eax, CHILD_IO_PORT
        call    put_hex
        say     " is intercepted\n"

        begin_input
        in64    0, [root_id]                    # port partition
        in32    8, MESSAGE_PORT
        in64    16, [child_id]                  # the only partition that may connect
        in32    24, HvPortTypeMessage
        in32    32, 1                           # SINT1
        in32    36, [root_vp]
        hvcall  HvCallCreatePort, pool=[root_id]
        must_succeed "CreatePort (message)"
        mov     ebx, HvPortTypeMessage
        mov     r12d, MESSAGE_PORT
        mov     r13d, MESSAGE_CONNECTION
        call    connect_port
        say     "    message port on SINT1, connected\n"

        begin_input
        in64    0, [root_id]
        in32    8, EVENT_PORT
        in64    16, [child_id]
        in32    24, HvPortTypeEvent
        in32    32, 2                           # SINT2
        in32    36, [root_vp]
        in16    40, EVENT_BASE_FLAG
        in16    42, EVENT_FLAG_COUNT
        hvcall  HvCallCreatePort, pool=[root_id]
        must_succeed "CreatePort (event)"
        mov     ebx, HvPortTypeEvent
        mov     r12d, EVENT_PORT
        mov     r13d, EVENT_CONNECTION
        call    connect_port
        say     "    event port on SINT2, connected\n"
        ret

# EBX port type, R12D port id, R13D connection id.
connect_port:
        begin_input
        in64    0, [child_id]                   # connection partition
        in32    8, r13d
        in64    16, [root_id]                   # port partition
        in32    24, r12d
        in32    32, ebx
        hvcall  HvCallConnectPort, pool=[child_id]
        must_succeed "ConnectPort"
        ret

# EDX: access mask, zero to remove the intercept.
set_io_intercept:
        push    rdx
        begin_input
        pop     rdx
        in64    0, [child_id]
        in32    8, edx
        in32    12, HvInterceptTypeX64IoPort
        in64    16, CHILD_IO_PORT
        hvcall  HvCallInstallIntercept, pool=[child_id]
        must_succeed "InstallIntercept"
        ret
