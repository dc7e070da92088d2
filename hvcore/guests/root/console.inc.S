# The console: a 16550 UART at port 3F8h, driven by polling, and the macros that say things on it.
# Every routine keeps all registers, so a line of output can stand anywhere between two steps. Interrupt
# handlers never print, so the lines cannot mix.

UART_DATA       = 0x3F8                 # divisor latch low while DLAB is set
UART_IER        = 0x3F9                 # divisor latch high while DLAB is set
UART_FCR        = 0x3FA
UART_LCR        = 0x3FB
UART_MCR        = 0x3FC
UART_LSR        = 0x3FD
LCR_DLAB        = 0x80
LCR_8N1         = 0x03
LSR_THRE        = 0x20

.macro  outb    port:req, value:req
        mov     dx, \port
        mov     al, \value
        out     dx, al
.endm

# say "text": print a literal, kept in .rodata.
.macro  say     text:vararg
        push    rsi
        mov     esi, OFFSET .Ltext\@
        call    put_text
        pop     rsi
        .pushsection .rodata.str1.1, "aMS", @progbits, 1
.Ltext\@:
        .asciz  \text
        .popsection
.endm

.macro  say_hex value:req
        push    rax
        mov     rax, \value
        call    put_hex
        pop     rax
.endm

.macro  say_dec value:req
        push    rax
        mov     rax, \value
        call    put_dec
        pop     rax
.endm

.macro  say_dec32 value:req
        push    rax
        mov     eax, \value
        call    put_dec
        pop     rax
.endm

.macro  say_hex32 value:req
        push    rax
        mov     eax, \value
        call    put_hex
        pop     rax
.endm

# 115200 baud, 8N1, FIFOs on and cleared, DTR and RTS raised, no UART interrupts.
console_init:
        push    rax
        push    rdx
        outb    UART_IER, 0
        outb    UART_LCR, LCR_DLAB
        outb    UART_DATA, 1
        outb    UART_IER, 0
        outb    UART_LCR, LCR_8N1
        outb    UART_FCR, 0xC7
        outb    UART_MCR, 0x03
        pop     rdx
        pop     rax
        ret

# AL: one character.
put_char:
        push    rax
        push    rdx
        push    rax
        mov     dx, UART_LSR
1:      in      al, dx
        test    al, LSR_THRE
        jz      1b
        mov     dx, UART_DATA
        pop     rax
        out     dx, al
        mov     [last_char], al
        pop     rdx
        pop     rax
        ret

# Bad news may come in the middle of a line.
fresh_line:
        cmp     byte ptr [last_char], 10
        je      1f
        say     "\n"
1:      ret

# RSI: text that ends with a zero byte.
put_text:
        push    rax
        push    rsi
1:      lodsb
        test    al, al
        jz      2f
        call    put_char
        jmp     1b
2:      pop     rsi
        pop     rax
        ret

# RSI, ECX: text of known length (message payloads have no terminator).
put_chars:
        push    rax
        push    rcx
        push    rsi
        jrcxz   2f
1:      lodsb
        call    put_char
        loop    1b
2:      pop     rsi
        pop     rcx
        pop     rax
        ret

# RAX: unsigned number as 0x..., without leading zeros: BSR finds how many digits there are.
put_hex:
        push    rax
        push    rcx
        push    rdx
        say     "0x"
        mov     rdx, rax
        or      rdx, 1                  # zero still has one digit
        bsr     rdx, rdx
        shr     edx, 2
        mov     ecx, 15
        sub     ecx, edx                # digits to leave out
        shl     ecx, 2
        shl     rax, cl                 # the first digit goes to the top
        lea     ecx, [rdx + 1]
        call    put_digits
        pop     rdx
        pop     rcx
        pop     rax
        ret

# AX: a status as four digits.
put_status:
        push    rax
        push    rcx
        shl     rax, 48
        mov     ecx, 4
        call    put_digits
        pop     rcx
        pop     rax
        ret

# The top ECX hexadecimal digits of RAX.
put_digits:
        push    rax
        push    rcx
        push    rdx
        mov     rdx, rax
1:      rol     rdx, 4
        mov     eax, edx
        and     eax, 15
        mov     al, [digits + rax]
        call    put_char
        loop    1b
        pop     rdx
        pop     rcx
        pop     rax
        ret

# RAX: unsigned number in decimal; the digits are pushed and then popped in reading order.
put_dec:
        push    rax
        push    rcx
        push    rdx
        push    rbx
        mov     ebx, 10
        xor     ecx, ecx
1:      xor     edx, edx
        div     rbx
        push    rdx
        inc     ecx
        test    rax, rax
        jnz     1b
2:      pop     rax
        add     al, '0'
        call    put_char
        loop    2b
        pop     rbx
        pop     rdx
        pop     rcx
        pop     rax
        ret

        .pushsection .rodata
digits: .ascii  "0123456789abcdef"
        .popsection

        .pushsection .bss
last_char:      .skip 8
        .popsection
