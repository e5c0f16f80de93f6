package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// Streams that are being created at a time.
	creating      = 8
	createTimeout = 2 * time.Minute
	answerTimeout = 3 * time.Second
	pollEvery     = 20 * time.Millisecond
)

// create makes a stream a partition and waits until each has a leader and all its replicas are current. A stream that
// exists is waited for.
func create(connection *nats.Conn, workload *Workload) error {
	js, err := newJetStream(connection)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), createTimeout)
	defer cancel()
	partitions := make(chan int)
	results := make(chan error)
	for range creating {
		go func() {
			for partition := range partitions {
				results <- createStream(ctx, js, workload, partition)
			}
		}()
	}
	go func() {
		for partition := range workload.Partitions {
			partitions <- partition
		}
	}()
	var failed error
	for done := range workload.Partitions {
		if err := <-results; err != nil && failed == nil {
			failed = fmt.Errorf("stream %d of %d: %w", done+1, workload.Partitions, err)
			cancel()
		}
	}
	return failed
}

// createStream asks again until the stream is ready: after a start of the servers a request may come before there is a
// leader to answer it.
func createStream(ctx context.Context, js jetstream.JetStream, workload *Workload, partition int) error {
	config := jetstream.StreamConfig{
		Name:              workload.stream(partition),
		Subjects:          []string{workload.subject(partition)},
		Storage:           jetstream.FileStorage,
		Replicas:          workload.Replication,
		AllowBatchPublish: true,
	}
	for {
		isReady, err := tryStream(ctx, js, config)
		if isReady || err != nil && !isPassing(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready in time: %w", ctx.Err())
		case <-time.After(pollEvery):
		}
	}
}

// tryStream makes the stream, where it is not there, and tells whether it is ready.
func tryStream(ctx context.Context, js jetstream.JetStream, config jetstream.StreamConfig) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	stream, err := js.CreateStream(ctx, config)
	if err != nil {
		return false, err
	}
	info, err := stream.Info(ctx)
	return err == nil && isReady(info, config.Replicas), err
}

// isPassing tells errors of a leader that is not there yet.
func isPassing(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, jetstream.ErrStreamNotFound)
}

func isReady(info *jetstream.StreamInfo, replication int) bool {
	if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != replication-1 {
		return false
	}
	for _, replica := range info.Cluster.Replicas {
		if !replica.Current {
			return false
		}
	}
	return true
}

// checkCount refuses streams that do not hold as many messages as were acknowledged.
func checkCount(js jetstream.JetStream, workload *Workload, wanted int) error {
	ctx, cancel := limited()
	defer cancel()
	found := 0
	for partition := range workload.Partitions {
		stream, err := js.Stream(ctx, workload.stream(partition))
		if err != nil {
			return err
		}
		found += int(stream.CachedInfo().State.Msgs)
	}
	if found != wanted {
		return fmt.Errorf("%d messages were acknowledged, the streams hold %d", wanted, found)
	}
	return nil
}
