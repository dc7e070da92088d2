/* A line parser for Valgrind's lackey as anybody would write it in C: find the line's end, look at its first
   characters, read a hexadecimal and a decimal number, store the record. Returns the records. */
#include <stdint.h>
#include <string.h>

typedef struct { uint64_t address; uint16_t size, asid; uint8_t kind, page_shift, nested_page_shift, unused; } record_t;

uint64_t parse(const char* text, uint64_t length, record_t* records)
{
    const char *at = text, *end = text + length, *line_end;
    uint64_t count = 0;
    for (; at < end && (line_end = memchr(at, '\n', end - at)); at = line_end + 1) {
        const char* place = at + 3;
        uint64_t address = 0;
        unsigned size = 0;
        record_t record = {0};
        if (line_end - at < 6 || at[2] != ' ')
            continue;
        if (at[0] == 'I' && at[1] == ' ')
            record.kind = 0;
        else if (at[0] == ' ' && at[1] == 'L')
            record.kind = 1;
        else if (at[0] == ' ' && at[1] == 'S')
            record.kind = 2;
        else if (at[0] == ' ' && at[1] == 'M')
            record.kind = 3;
        else
            continue;
        for (; *place != ',' && place < line_end; place++)
            address = address << 4 | (*place <= '9' ? *place - '0' : *place - 'a' + 10);
        for (place++; place < line_end; place++)
            size = size * 10 + (*place - '0');
        record.address = address;
        record.size = size;
        records[count++] = record;
    }
    return count;
}
