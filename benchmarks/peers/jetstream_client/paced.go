package main

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The publisher looks for due records so often at most.
const shortestSleep = 200 * time.Microsecond

// pace is an open loop: record i is due at began + i / rate. See benchmarks/pace.py.
type pace struct {
	workload *Workload
	began    time.Time
	step     time.Duration
	first    int // that is counted
	total    int

	mu        sync.Mutex
	histogram latencies
	settled   int
	finished  chan struct{}
}

func newPace(workload *Workload) *pace {
	first := int(float64(workload.Rate)*workload.WarmSeconds + 0.5)
	total := first + int(float64(workload.Rate)*workload.Seconds+0.5)
	step := time.Second / time.Duration(workload.Rate)
	return &pace{workload: workload, step: step, first: first, total: total, histogram: latencies{},
		finished: make(chan struct{})}
}

func (p *pace) due(number int) time.Time { return p.began.Add(time.Duration(number) * p.step) }

// settle counts the record of this message, which carries its number, as acknowledged or consumed now.
func (p *pace) settle(data []byte) {
	number, now := int(binary.BigEndian.Uint64(data)), time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if number >= p.first {
		p.histogram.record(now.Sub(p.due(number)))
	}
	p.settled++
	if p.settled == p.total {
		close(p.finished)
	}
}

// paced does open_loop and tail: the same publishing, settled by the acknowledgement or by a consumer.
func paced(connection *nats.Conn, workload *Workload) (*Load, error) {
	pace, broken := newPace(workload), newFailure()
	isTail := workload.Kind == "tail"
	js, err := newAsync(connection, broken, func(msg *nats.Msg) {
		if !isTail {
			pace.settle(msg.Data)
		}
	})
	if err != nil {
		return nil, err
	}
	if isTail {
		settle := func(msg jetstream.Msg) { pace.settle(msg.Data()) }
		stop, err := subscribe(connection, workload, settle)
		if err != nil {
			return nil, err
		}
		defer stop()
	}
	watch, err := pace.publish(js)
	if err != nil {
		return nil, err
	}
	// Of a tail the acknowledgements count too: with what failed among them the run fails.
	if err := await(js.PublishAsyncComplete(), broken); err != nil {
		return nil, err
	}
	if err := await(pace.finished, broken); err != nil {
		return nil, err
	}
	return watch.load(workload, pace.total-pace.first, pace.histogram), nil
}

// publish sends each record when it is due; the watch runs from the first counted one.
func (p *pace) publish(js jetstream.JetStream) (watch stopwatch, err error) {
	pattern, patience := payload(p.workload.RecordBytes), jetstream.WithStallWait(requestTimeout)
	subjects := make([]string, p.workload.Partitions)
	for partition := range subjects {
		subjects[partition] = p.workload.subject(partition)
	}
	p.began = time.Now()
	for number := range p.total {
		if wait := time.Until(p.due(number)); wait > 0 {
			time.Sleep(max(wait, shortestSleep))
		}
		if number == p.first {
			watch = startWatch()
		}
		data := append([]byte(nil), pattern...)
		binary.BigEndian.PutUint64(data, uint64(number))
		if _, err := js.PublishAsync(subjects[number%len(subjects)], data, patience); err != nil {
			return watch, err
		}
	}
	return watch, nil
}
