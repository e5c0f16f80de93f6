package main

import (
	"math/rand"
	"sort"
	"sync"
	"syscall"
	"time"
)

// Load is benchmarks/result.py's; Latency has exact microseconds instead of buckets.
type Load struct {
	Records    int        `json:"records"`
	Bytes      int        `json:"bytes"`
	Seconds    float64    `json:"seconds"`
	Latency    [][2]int64 `json:"latency"`
	ClientCPUs float64    `json:"client_cpu_s"`
}

// latencies counts durations in microseconds. Not safe for concurrent use.
type latencies map[int64]int64

func (l latencies) record(duration time.Duration) { l[max(duration.Microseconds(), 0)]++ }

func (l latencies) rows() [][2]int64 {
	rows := make([][2]int64, 0, len(l))
	for microseconds, count := range l {
		rows = append(rows, [2]int64{microseconds, count})
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i][0] < rows[j][0] })
	return rows
}

// stopwatch measures wall time and this process's CPU time.
type stopwatch struct {
	began time.Time
	cpu   float64
}

func startWatch() stopwatch { return stopwatch{time.Now(), cpuSeconds()} }

func (s stopwatch) load(workload *Workload, records int, histogram latencies) *Load {
	seconds := time.Since(s.began).Seconds()
	return &Load{records, records * workload.RecordBytes, seconds, histogram.rows(), cpuSeconds() - s.cpu}
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// payload gives bytes that do not compress, the same in each run.
func payload(size int) []byte {
	data := make([]byte, size)
	rand.New(rand.NewSource(1)).Read(data)
	return data
}

// failure keeps the first error of many goroutines and tells when there is one.
type failure struct {
	once   sync.Once
	failed chan struct{}
	err    error
}

func newFailure() *failure { return &failure{failed: make(chan struct{})} }

func (f *failure) set(err error) {
	f.once.Do(func() {
		f.err = err
		close(f.failed)
	})
}
