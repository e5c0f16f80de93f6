/* A wall clock that is wrong, loaded by LD_PRELOAD.
 *
 * Owns clock_gettime of the wall clocks, gettimeofday, time and timespec_get, as the program itself and libpython call
 * them. What other libraries ask is answered truly: gRPC turns the time of day into deadlines that the kernel waits for
 * by its own clock, so a clock that is wrong for it alone would stop it, as no wrong clock of a machine does. Monotonic
 * clocks stay right. The control file that PENSTOCK_WRONG_CLOCK names is mapped shared (chaos/shims/clock.py has the
 * same fields); without it the clock is right.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL
#define IMAGES_MAX 4

struct control {
    _Atomic int64_t skew_ns; /* how far ahead the clock is */
    _Atomic int64_t asked;   /* how often the time was asked for while it was wrong */
};

struct image {
    uintptr_t begin, end;
};

static struct control *control;
static struct image images[IMAGES_MAX];
static int image_count;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

static int note_image(struct dl_phdr_info *info, size_t size, void *unused) {
    (void)size, (void)unused;
    int is_program = info->dlpi_name == NULL || info->dlpi_name[0] == 0; /* the program itself has no name */
    if (image_count == IMAGES_MAX || (!is_program && !strstr(info->dlpi_name, "libpython")))
        return 0;
    struct image found = {UINTPTR_MAX, 0};
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t begin = info->dlpi_addr + part->p_vaddr;
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X))
            continue;
        found.begin = begin < found.begin ? begin : found.begin;
        found.end = begin + part->p_memsz > found.end ? begin + part->p_memsz : found.end;
    }
    images[image_count++] = found;
    return 0;
}

static void find(void) {
    if (!real_clock_gettime)
        real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
}

__attribute__((constructor)) static void open_control(void) {
    const char *path = getenv("PENSTOCK_WRONG_CLOCK");
    find();
    dl_iterate_phdr(note_image, NULL);
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    control = mapped == MAP_FAILED ? NULL : mapped;
    close(file);
}

static int is_of_program(const void *caller) {
    for (int i = 0; i < image_count; i++)
        if ((uintptr_t)caller >= images[i].begin && (uintptr_t)caller < images[i].end)
            return 1;
    return 0;
}

static int ask(clockid_t clock, struct timespec *answer, const void *caller) {
    find();
    int failed = real_clock_gettime(clock, answer);
    int64_t skew_ns = control ? atomic_load(&control->skew_ns) : 0;
    int is_wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
    if (failed || skew_ns == 0 || !is_wall || !is_of_program(caller))
        return failed;
    atomic_fetch_add(&control->asked, 1);
    int64_t ns = answer->tv_nsec + skew_ns % NS_PER_S;
    int64_t carry = ns < 0 ? -1 : ns >= NS_PER_S;
    answer->tv_sec += skew_ns / NS_PER_S + carry;
    answer->tv_nsec = ns - carry * NS_PER_S;
    return 0;
}

int clock_gettime(clockid_t clock, struct timespec *answer) {
    return ask(clock, answer, __builtin_return_address(0));
}

int gettimeofday(struct timeval *restrict answer, void *restrict zone) {
    struct timespec now;
    (void)zone; /* obsolete, as the C library has it */
    int failed = ask(CLOCK_REALTIME, &now, __builtin_return_address(0));
    if (!failed)
        *answer = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return failed;
}

time_t time(time_t *answer) {
    struct timespec now;
    if (ask(CLOCK_REALTIME, &now, __builtin_return_address(0)))
        return -1;
    if (answer)
        *answer = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *answer, int base) {
    if (base != TIME_UTC)
        return 0;
    return ask(CLOCK_REALTIME, answer, __builtin_return_address(0)) ? 0 : base;
}
