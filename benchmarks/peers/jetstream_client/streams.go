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
	createTimeout = 4 * time.Minute
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

func createStream(ctx context.Context, js jetstream.JetStream, workload *Workload, partition int) error {
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{
		Name:              workload.stream(partition),
		Subjects:          []string{workload.subject(partition)},
		Storage:           jetstream.FileStorage,
		Replicas:          workload.Replication,
		AllowBatchPublish: true,
	})
	for err == nil {
		var info *jetstream.StreamInfo
		if info, err = stream.Info(ctx); err == nil && isReady(info, workload.Replication) {
			return nil
		}
		// A stream whose leader is not there yet does not answer.
		if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrStreamNotFound) {
			err = nil
		}
		time.Sleep(pollEvery)
		if ctx.Err() != nil {
			err = ctx.Err()
		}
	}
	return err
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
