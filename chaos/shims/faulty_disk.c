/* A disk that fails and is slow on demand, loaded by LD_PRELOAD.
 *
 * Owns fsync, fdatasync, msync(MS_SYNC) and writes to files opened with O_SYNC or O_DSYNC (how LMDB writes its meta
 * page): each of these is a sync. The control file that PENSTOCK_FAULTY_DISK names is mapped shared; who injects faults
 * writes to it at any time (chaos/shims/faulty_disk.py has the same fields). Without that file nothing is changed.
 * What fails is not done: it returns -1 with errno EIO.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct control {
    _Atomic int64_t pass;     /* so many syncs more succeed before any fails */
    _Atomic int64_t fail;     /* then so many fail */
    _Atomic int64_t delay_us; /* each takes so much longer */
    _Atomic int64_t calls;    /* syncs so far, failed ones included */
    _Atomic int64_t failed;
    _Atomic int64_t delayed;
};

static struct control *control;
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_msync)(void *, size_t, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);

static void find(void) {
    if (real_pwrite)
        return;
    real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    real_msync = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "msync");
    real_pwrite = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
}

__attribute__((constructor)) static void open_control(void) {
    const char *path = getenv("PENSTOCK_FAULTY_DISK");
    find();
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    control = mapped == MAP_FAILED ? NULL : mapped;
    close(file);
}

/* Takes one of what is left; false where nothing is. */
static int take(_Atomic int64_t *left) {
    int64_t seen = atomic_load(left);
    while (seen > 0)
        if (atomic_compare_exchange_weak(left, &seen, seen - 1))
            return 1;
    return 0;
}

/* Called before each sync: waits as long as the disk is slow; true where the sync fails. */
static int fails(void) {
    if (!control)
        return 0;
    atomic_fetch_add(&control->calls, 1);
    int64_t delay_us = atomic_load(&control->delay_us);
    if (delay_us > 0) {
        struct timespec left = {delay_us / 1000000, delay_us % 1000000 * 1000};
        atomic_fetch_add(&control->delayed, 1);
        while (nanosleep(&left, &left) < 0 && errno == EINTR)
            ;
    }
    if (take(&control->pass) || !take(&control->fail))
        return 0;
    atomic_fetch_add(&control->failed, 1);
    errno = EIO;
    return 1;
}

/* Asks for the file's flags only while there is a fault: this is on the path of every page that LMDB writes. */
static int fails_to_write(int file) {
    if (!control || (atomic_load(&control->delay_us) <= 0 && atomic_load(&control->fail) <= 0))
        return 0;
    int flags = fcntl(file, F_GETFL);
    return flags >= 0 && (flags & O_DSYNC) && fails(); /* O_SYNC contains O_DSYNC */
}

int fsync(int file) {
    find();
    return fails() ? -1 : real_fsync(file);
}

int fdatasync(int file) {
    find();
    return fails() ? -1 : real_fdatasync(file);
}

int msync(void *address, size_t length, int flags) {
    find();
    return (flags & MS_SYNC) && fails() ? -1 : real_msync(address, length, flags);
}

ssize_t pwrite(int file, const void *data, size_t length, off_t at) {
    find();
    return fails_to_write(file) ? -1 : real_pwrite(file, data, length, at);
}

#ifdef __GLIBC__ /* the same function under the name that programs built for large files use */
ssize_t pwrite64(int file, const void *data, size_t length, off64_t at) {
    return pwrite(file, data, length, (off_t)at);
}
#endif
