package main

import (
	"log"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Messages of a stream that are asked for ahead.
const prefetch = 5_000

// consume reads the streams from their starts, once. The form of the workload changes nothing: every way of reading a
// stream gives single messages.
func consume(connection *nats.Conn, workload *Workload) (*Load, error) {
	if !workload.Cold {
		// Of a cold server nothing is read before.
		if err := read(connection, workload, min(workload.WarmRecords, workload.Records)); err != nil {
			return nil, err
		}
	}
	watch := startWatch()
	if err := read(connection, workload, workload.Records); err != nil {
		return nil, err
	}
	return watch.load(workload, workload.Records, nil), nil
}

// read returns after `records` messages.
func read(connection *nats.Conn, workload *Workload, records int) error {
	if records == 0 {
		return nil
	}
	broken, finished := newFailure(), make(chan struct{})
	count := atomic.Int64{}
	stop, err := subscribe(connection, workload, func(jetstream.Msg) {
		if count.Add(1) == int64(records) {
			close(finished)
		}
	})
	if err != nil {
		return err
	}
	defer stop()
	return await(finished, broken)
}

// subscribe has an ordered consumer on each stream, from its start; the handler is called by a goroutine a stream.
func subscribe(
	connection *nats.Conn, workload *Workload, handler func(jetstream.Msg),
) (stop func(), err error) {
	js, err := newJetStream(connection)
	if err != nil {
		return nil, err
	}
	var running []jetstream.ConsumeContext
	stop = func() {
		for _, one := range running {
			one.Stop()
		}
	}
	// An ordered consumer recovers by itself, say from a request that came before its server knew it. What does not
	// come in the end fails the run; the reason is then among these.
	told := func(_ jetstream.ConsumeContext, err error) { log.Println("consumer:", err) }
	ctx, cancel := limited()
	defer cancel()
	for partition := range workload.Partitions {
		consumer, err := js.OrderedConsumer(ctx, workload.stream(partition), jetstream.OrderedConsumerConfig{})
		if err != nil {
			stop()
			return nil, err
		}
		one, err := consumer.Consume(handler, jetstream.PullMaxMessages(prefetch), jetstream.ConsumeErrHandler(told))
		if err != nil {
			stop()
			return nil, err
		}
		running = append(running, one)
	}
	return stop, nil
}
