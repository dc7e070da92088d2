/* Runs one workload as an ordinary process on an x86-64 host: maps the arena where the guest has it, times only
   the call to workload(), prints the checksum in hexadecimal and the time in nanoseconds. With an argument n it
   calls n times on a freshly zeroed arena and prints a line for each. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include "wl.h"
#define ARENA_BYTES (96UL << 20)
static u64 nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000UL + (u64)t.tv_nsec;
}
int main(int argc, char **argv)
{
    int runs = argc > 1 ? atoi(argv[1]) : 1;
    for (int run = 0; run < runs; run++) {
        void *arena = mmap(ARENA, ARENA_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_POPULATE, -1, 0);
        if (arena != (void *)ARENA) {
            perror("mmap");
            return 1;
        }
        u64 start = nanoseconds();
        u64 checksum = workload();
        u64 end = nanoseconds();
        printf("%lx %lu\n", checksum, end - start);
    }
    return 0;
}
