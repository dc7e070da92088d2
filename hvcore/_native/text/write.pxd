"""Words and numbers into a character buffer: each function returns where the next character goes.

A buffer has LINE_MAXIMUM characters: words are copied as whole slots, beyond their end.
"""
from libc.string cimport memcpy, memmove
from hvcore._native.base.types cimport i64, u8, u32, u64
from hvcore._native.text.spec cimport word_t


cdef inline char* put_word(char* out, const word_t* word) noexcept nogil:
    memcpy(out, word.text, 23)
    return out + word.length


cdef inline char* put_character(char* out, char character) noexcept nogil:
    out[0] = character
    return out + 1


cdef inline char* put_text(char* out, const char* text, u32 length) noexcept nogil:
    memcpy(out, text, length)
    return out + length


cdef inline u32 digit_count(u64 value) noexcept nogil:
    """Hexadecimal digits; 1 for 0."""
    cdef u32 count = 1
    while value > 0xF:
        value >>= 4
        count += 1
    return count


cdef inline char* put_digits(char* out, u64 value, u32 count) noexcept nogil:
    """The low `count` hexadecimal digits."""
    cdef u32 left = count
    cdef u8 digit
    while left:
        left -= 1
        digit = value & 0xF
        out[left] = <char>(digit + (48 if digit < 10 else 55))
        value >>= 4
    return out + count


cdef inline char* put_suffixed(char* out, u64 value, u32 count) noexcept nogil:
    """`count` digits with an h behind, and a 0 in front of a letter."""
    if (value >> 4 * (count - 1) & 0xF) > 9:
        out = put_character(out, c"0")
    out = put_digits(out, value, count)
    return put_character(out, c"h")


cdef inline char* put_prefixed(char* out, u64 value, u32 count) noexcept nogil:
    """`count` digits with 0x in front."""
    out[0], out[1] = c"0", c"x"
    return put_digits(out + 2, value, count)


cdef inline char* put_number(char* out, u64 value, bint prefixed) noexcept nogil:
    """Hexadecimal; below 10 a single digit, which is the same in every base."""
    if value < 10:
        return put_character(out, <char>(48 + value))
    if prefixed:
        return put_prefixed(out, value, digit_count(value))
    return put_suffixed(out, value, digit_count(value))


cdef inline char* put_signed(char* out, i64 value, bint prefixed) noexcept nogil:
    """A number with a minus if it has one."""
    if value < 0:
        out = put_character(out, c"-")
        return put_number(out, 0 - <u64>value, prefixed)
    return put_number(out, <u64>value, prefixed)
