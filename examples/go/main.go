// An agent in Go that lists the models of a provider. Its credential is always current: a stream holds the lease, and a
// rotation arrives within milliseconds.
//
//	./generate && go run . anthropic
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	broker "example.com/agent/equabot/broker/v1"
)

const patience = 10 * time.Second

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1]); err != nil {
		log.Fatalln(explain(err))
	}
}

func run(ctx context.Context, provider string) error {
	connection, err := grpc.NewClient("unix:"+socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	held := &credential{changed: make(chan struct{})}
	go held.keep(ctx, broker.NewBrokerClient(connection), provider)
	lease, err := held.wait(ctx)
	if err != nil {
		return err
	}
	return request(ctx, lease)
}

// request lists the provider's models. The headers go to the provider only, and no log gets them.
func request(ctx context.Context, lease *broker.Lease) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, lease.BaseUrl+"/v1/models", nil)
	if err != nil {
		return err
	}
	for name, value := range lease.Headers {
		request.Header.Set(name, value)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	fmt.Println(lease.Profile, "until", lease.ExpiresAt.AsTime().Format(time.TimeOnly), "answered", response.Status)
	return nil
}

// credential is the lease in hand. Never print a *broker.Lease: protobuf shows the secret in it.
type credential struct {
	mutex   sync.Mutex
	lease   *broker.Lease
	err     error
	changed chan struct{}
}

// keep holds a lease until the context ends. A pause with jitter follows a stream that fails, so that a thousand agents
// do not return to a broker in the same instant.
func (c *credential) keep(ctx context.Context, api broker.BrokerClient, provider string) {
	for failures := 0; ctx.Err() == nil; failures++ {
		began := time.Now()
		err := c.stream(ctx, api, provider)
		if time.Since(began) > 5*time.Second {
			failures = 0
		}
		c.set(c.current(), err)
		pause := min(50*time.Millisecond<<min(failures, 7), 5*time.Second)
		if wait := retryDelay(err); wait > pause {
			pause = min(wait, time.Minute)
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
		}
	}
}

// stream holds one lease. The broker renews it while the stream is open, and revokes it when the stream ends.
func (c *credential) stream(ctx context.Context, api broker.BrokerClient, provider string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := api.StreamLease(ctx, &broker.AcquireLeaseRequest{Provider: provider})
	if err != nil {
		return err
	}
	silence := time.AfterFunc(patience, cancel) // a stream has no deadline of its own, so silence ends it
	defer silence.Stop()
	for {
		event, err := events.Recv()
		if err != nil {
			return err
		}
		if event.Kind == broker.LeaseEvent_REVOKED {
			switch event.Reason {
			case "max_ttl", "expired", "shutting_down": // the credential is good until its end
			default:
				c.set(nil, nil)
			}
			return nil
		}
		if event.Lease != nil {
			c.set(event.Lease, nil)
			life := event.Lease.ExpiresAt.AsTime().Sub(event.Lease.IssuedAt.AsTime())
			silence.Reset(life * 9 / 10) // the renewal comes at two thirds of the life
		}
		if event.Kind == broker.LeaseEvent_EXPIRING {
			return nil
		}
	}
}

// wait returns the lease in hand, or the refusal of the broker. It waits for a broker that is starting.
func (c *credential) wait(ctx context.Context) (*broker.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		c.mutex.Lock()
		lease, err, changed := c.lease, c.err, c.changed
		c.mutex.Unlock()
		if lease != nil && time.Now().Before(lease.ExpiresAt.AsTime()) {
			return lease, nil
		}
		if err != nil && status.Code(err) != codes.Unavailable {
			return nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		}
	}
}

func (c *credential) current() *broker.Lease {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.lease
}

func (c *credential) set(lease *broker.Lease, err error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.lease, c.err = lease, err
	close(c.changed)
	c.changed = make(chan struct{})
}

// explain returns the reason of a refusal and what the broker says about it. A reason of a newer broker passes through.
func explain(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "equabot.dev" {
			return info.Reason + ": " + status.Convert(err).Message()
		}
	}
	if status.Code(err) == codes.Unavailable || errors.Is(err, context.DeadlineExceeded) {
		return "no broker answers at " + socket() + ": start one with `equabot serve`, or mount its socket here"
	}
	return err.Error()
}

func retryDelay(err error) time.Duration {
	for _, detail := range status.Convert(err).Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			return retry.RetryDelay.AsDuration()
		}
	}
	return 0
}

// socket is the place of the broker: the container mounts the directory of this agent only.
func socket() string {
	directory := os.Getenv("EQUABOT_RUN_DIR")
	if directory == "" {
		directory = "/run/equabot"
	}
	return filepath.Join(directory, "main", "broker.sock")
}
