# Step 9: everything back. A partition dies in a fixed order: stop it, cut its channels, finalize, empty its pool,
# delete it; at the end every page that was ever deposited is at home again.

tear_down:
        mov     edx, 1
        call    set_explicit_suspend
        mov     edx, HV_INTERCEPT_ACCESS_NONE
        call    set_io_intercept

        mov     r12d, MESSAGE_CONNECTION        # second parameter: id in the low half, flags zero
        hvcall_fast HvCallDisconnectPort, [child_id], r12
        must_succeed "DisconnectPort (message)"
        mov     r12d, EVENT_CONNECTION
        hvcall_fast HvCallDisconnectPort, [child_id], r12
        must_succeed "DisconnectPort (event)"
        mov     r12d, MESSAGE_PORT
        hvcall_fast HvCallDeletePort, [root_id], r12
        must_succeed "DeletePort (message)"
        begin_input                             # the same call with its parameters in memory
        in64    0, [root_id]
        in32    8, EVENT_PORT
        hvcall  HvCallDeletePort
        must_succeed "DeletePort (event)"
        say     "[9] child stopped, ports disconnected and deleted\n"

        hvcall_fast HvCallFinalizePartition, [child_id]
        must_succeed "FinalizePartition"
        hvcall_fast HvCallDeletePartition, [child_id]
        must_be HV_STATUS_OPERATION_DENIED, "DeletePartition must be refused while the pool holds pages"
        mov     rdi, [child_id]
        call    withdraw_all
        say     "    finalized; "
        call    put_dec
        say     " pages withdrawn from its pool\n"
        mov     rdi, [child_id]
        call    memory_balance
        or      rax, rdx
        fail_if nz, "the child's pool is not empty"
        begin_input
        in64    0, [child_id]
        hvcall  HvCallDeletePartition
        must_succeed "DeletePartition"

        mov     rdi, [root_id]
        call    withdraw_all
        say     "    partition "
        say_dec [child_id]
        say     " deleted; "
        call    put_dec
        say     " pages withdrawn from our own pool\n    our memory pool: "
        mov     rdi, [root_id]
        call    say_balance
        mov     eax, [pages_home]
        cmp     eax, ARENA_PAGES
        fail_if ne, "deposited pages did not all come back"

        wrmsr64 HV_X64_MSR_SCONTROL, 0
        ret

summary:
        say     "hvcore: all done\nhvcore: messages "
        say_dec32 [messages_seen]
        say     ", events "
        say_dec32 [events_seen]
        say     ", intercepts "
        say_dec32 [intercepts_seen]
        say     ", timer interrupts "
        say_dec32 [timer_interrupts]
        say     ", pages lent and returned "
        say_dec32 [pages_deposited]
        say     "\n"
        ret
