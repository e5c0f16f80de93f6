// The client process of the JetStream benchmarks. benchmarks/peers/jetstream.py starts it and says what is measured.
//
//	jetstream_client create|drive|fill BOOTSTRAP
//
// The workload (benchmarks/workloads.py) comes as one line of JSON on standard input, which stays open: the program ends
// with whoever started it. `drive` prints the Load (benchmarks/result.py) as a line of JSON. Exit code 1 and a reason on
// standard error after any failure.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// As rare as the Python clients' collections: benchmarks/drive.py.
	gcPercent = 400
	// Of a request of the JetStream API and of an acknowledgement.
	requestTimeout = 60 * time.Second
	// Of the whole of a reading, or of the last acknowledgements.
	awaitTimeout = 5 * time.Minute
)

// Workload is benchmarks/workloads.py's.
type Workload struct {
	Name        string  `json:"name"`
	Kind        string  `json:"kind"`
	Partitions  int     `json:"partitions"`
	Replication int     `json:"replication"`
	RecordBytes int     `json:"record_bytes"`
	Records     int     `json:"records"`
	Rate        int     `json:"rate"`
	Seconds     float64 `json:"seconds"`
	WarmRecords int     `json:"warm_records"`
	WarmSeconds float64 `json:"warm_seconds"`
	BatchBytes  int     `json:"batch_bytes"`
	Form        string  `json:"form"`
	Cold        bool    `json:"cold"`
	// Publish is how `throughput` is done: "fast" or "async" (see throughput.go). Not of workloads.py.
	Publish string `json:"publish"`
}

func (w *Workload) stream(partition int) string  { return fmt.Sprintf("%s-%d", w.Name, partition) }
func (w *Workload) subject(partition int) string { return fmt.Sprintf("%s.%d", w.Name, partition) }

func main() {
	debug.SetGCPercent(gcPercent)
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: jetstream_client create|drive|fill BOOTSTRAP"))
	}
	workload, err := readWorkload()
	if err != nil {
		fail(err)
	}
	if err := run(os.Args[1], os.Args[2], workload); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func readWorkload() (*Workload, error) {
	input := bufio.NewReader(os.Stdin)
	line, err := input.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("no workload on standard input: %w", err)
	}
	workload := &Workload{}
	if err := json.Unmarshal(line, workload); err != nil {
		return nil, err
	}
	go func() {
		_, _ = io.Copy(io.Discard, input)
		fail(fmt.Errorf("whoever started this program is gone"))
	}()
	return workload, nil
}

func run(action, bootstrap string, workload *Workload) error {
	connection, err := connect(bootstrap)
	if err != nil {
		return err
	}
	defer connection.Close()
	var load *Load
	switch action {
	case "create":
		return create(connection, workload)
	case "fill":
		return fill(connection, workload)
	case "drive":
		if load, err = drive(connection, workload); err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(load)
	}
	return fmt.Errorf("unknown action %q", action)
}

func drive(connection *nats.Conn, workload *Workload) (*Load, error) {
	switch workload.Kind {
	case "throughput":
		return throughput(connection, workload)
	case "open_loop", "tail":
		return paced(connection, workload)
	case "series":
		return series(connection, workload)
	case "consume":
		if !workload.Cold {
			if err := fill(connection, workload); err != nil {
				return nil, err
			}
		}
		return consume(connection, workload)
	}
	return nil, fmt.Errorf("unknown kind %q", workload.Kind)
}

// connect gives a connection to any one of the servers, as NATS' clients do: it routes to the leaders of the streams.
func connect(bootstrap string) (*nats.Conn, error) {
	// A run with a lost connection is a failed run.
	return nats.Connect(bootstrap, nats.NoReconnect())
}

func limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), requestTimeout)
}

func newJetStream(connection *nats.Conn, options ...jetstream.JetStreamOpt) (jetstream.JetStream, error) {
	return jetstream.New(connection, append(options, jetstream.WithDefaultTimeout(requestTimeout))...)
}
