package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

const (
	// Messages without an acknowledgement, over all streams.
	asyncPending = 16_000
	// Of fast ingest: an acknowledgement every so many messages of a stream (a server allows no more than 500), and so
	// many of them outstanding.
	fastFlow        = 500
	fastOutstanding = 8
)

// throughput publishes `records` as fast as it goes, in one of two ways:
//
//	fast   fast ingest (nats-server 2.14, orbit.go): a publisher and a goroutine for each stream; the server acknowledges
//	       all messages up to one, every fastFlow messages
//	async  PublishAsync: an acknowledgement for each message; runs of batch_bytes go to a stream, then to the next
//
// Both acknowledge after the same things have happened to a message.
func throughput(connection *nats.Conn, workload *Workload) (*Load, error) {
	publish := publishFast
	if workload.Publish == "async" {
		publish = publishAsync
	}
	if err := publish(connection, workload, workload.WarmRecords); err != nil {
		return nil, err
	}
	watch := startWatch()
	if err := publish(connection, workload, workload.Records); err != nil {
		return nil, err
	}
	load := watch.load(workload, workload.Records, nil)
	js, err := newJetStream(connection)
	if err != nil {
		return nil, err
	}
	return load, checkCount(js, workload, workload.WarmRecords+workload.Records)
}

func fill(connection *nats.Conn, workload *Workload) error {
	return publishFast(connection, workload, workload.Records)
}

func publishFast(connection *nats.Conn, workload *Workload, records int) error {
	js, err := newJetStream(connection)
	if err != nil {
		return err
	}
	data := payload(workload.RecordBytes)
	results := make(chan error, workload.Partitions)
	for partition := range workload.Partitions {
		share := records / workload.Partitions
		if partition < records%workload.Partitions {
			share++
		}
		go func() { results <- publishStreamFast(js, workload.subject(partition), data, share) }()
	}
	for range workload.Partitions {
		if err := <-results; err != nil {
			return err
		}
	}
	return nil
}

// publishStreamFast publishes `records` messages to one subject and waits until all are acknowledged.
func publishStreamFast(js jetstream.JetStream, subject string, data []byte, records int) error {
	if records == 0 {
		return nil
	}
	broken := newFailure()
	publisher, err := jetstreamext.NewFastPublisher(js,
		jetstreamext.FastPublishFlowControl{Flow: fastFlow, MaxOutstandingAcks: fastOutstanding, AckTimeout: requestTimeout},
		jetstreamext.WithFastPublisherErrorHandler(broken.set))
	if err != nil {
		return err
	}
	for range records - 1 {
		if _, err := publisher.Add(subject, data); err != nil {
			return err
		}
	}
	ctx, cancel := limited()
	defer cancel()
	ack, err := publisher.Commit(ctx, subject, data)
	if err != nil {
		return err
	}
	select {
	case <-broken.failed:
		return broken.err
	default:
	}
	if int(ack.BatchSize) != records {
		return fmt.Errorf("%s: %d of %d messages were acknowledged", subject, ack.BatchSize, records)
	}
	return nil
}

func publishAsync(connection *nats.Conn, workload *Workload, records int) error {
	if records == 0 {
		return nil
	}
	broken, finished, acknowledged := newFailure(), make(chan struct{}), 0
	js, err := newAsync(connection, broken, func(*nats.Msg) {
		if acknowledged++; acknowledged == records {
			close(finished)
		}
	})
	if err != nil {
		return err
	}
	data, run := payload(workload.RecordBytes), max(workload.BatchBytes/workload.RecordBytes, 1)
	subjects := make([]string, workload.Partitions)
	for partition := range subjects {
		subjects[partition] = workload.subject(partition)
	}
	patience := jetstream.WithStallWait(requestTimeout)
	for number := range records {
		if _, err := js.PublishAsync(subjects[number/run%len(subjects)], data, patience); err != nil {
			return err
		}
	}
	defer js.CleanupPublisher()
	return await(finished, broken)
}

// newAsync gives a context whose PublishAsync calls onAck for each acknowledged message, from one goroutine.
func newAsync(connection *nats.Conn, broken *failure, onAck func(*nats.Msg)) (jetstream.JetStream, error) {
	return newJetStream(connection,
		jetstream.WithPublishAsyncMaxPending(asyncPending),
		jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, msg *nats.Msg, _ *jetstream.PubAck) { onAck(msg) }),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { broken.set(err) }))
}

// await returns once what is awaited has happened, or something failed.
func await(finished <-chan struct{}, broken *failure) error {
	select {
	case <-finished:
		return nil
	case <-broken.failed:
		return broken.err
	case <-time.After(awaitTimeout):
		return fmt.Errorf("not all messages were acknowledged or read in %s", awaitTimeout)
	}
}

// series publishes one message at a time and waits for each.
func series(connection *nats.Conn, workload *Workload) (*Load, error) {
	js, err := newJetStream(connection)
	if err != nil {
		return nil, err
	}
	data, ctx := payload(workload.RecordBytes), context.Background()
	publish := func(number int) error {
		_, err := js.Publish(ctx, workload.subject(number%workload.Partitions), data)
		return err
	}
	for number := range workload.WarmRecords {
		if err := publish(number); err != nil {
			return nil, err
		}
	}
	histogram, watch := latencies{}, startWatch()
	for number := range workload.Records {
		began := time.Now()
		if err := publish(number); err != nil {
			return nil, err
		}
		histogram.record(time.Since(began))
	}
	return watch.load(workload, workload.Records, histogram), nil
}
