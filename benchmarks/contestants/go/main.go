// The Go control: a gateway on the standard library in the shape people give it in Go.
//
// A bounded queue filled by select with a default (429 when full), a fixed number of workers that call the
// provider with the request's own context, and a stream that goes read → channel → write → flush. It reads no
// JSON on the proxy path, checks no key, keeps no metrics and writes no log: as cheap as this shape gets, so that
// a ratio to it flatters nobody.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

type job struct {
	ctx    context.Context
	body   []byte
	fanout bool
	head   chan head
	chunks chan []byte
}

type head struct {
	status      int
	contentType string
	length      string
	err         error
}

type gateway struct {
	upstream string
	client   *http.Client
	queue    chan *job
}

func (g *gateway) handle(fanout bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		j := &job{ctx: r.Context(), fanout: fanout, head: make(chan head, 1), chunks: make(chan []byte, 16)}
		// The body is read before the line is entered: net/http notices a client's leaving only after that.
		var err error
		if j.body, err = io.ReadAll(r.Body); err != nil {
			http.Error(w, "bad body", http.StatusBadRequest)
			return
		}
		select {
		case g.queue <- j:
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, `{"error":{"message":"queue full","type":"rate_limit_error"}}`, http.StatusTooManyRequests)
			return
		}
		var h head
		select {
		case h = <-j.head:
		case <-r.Context().Done():
			return
		}
		if h.err != nil {
			http.Error(w, "upstream failed", http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", h.contentType)
		if h.length != "" {
			w.Header().Set("Content-Length", h.length)
		}
		w.WriteHeader(h.status)
		flusher, streams := w.(http.Flusher), strings.HasPrefix(h.contentType, "text/event-stream")
		for chunk := range j.chunks {
			if _, err := w.Write(chunk); err != nil {
				return // the request's context is cancelled when the handler returns
			}
			if streams {
				flusher.Flush()
			}
		}
	}
}

func (g *gateway) work() {
	for j := range g.queue {
		if j.ctx.Err() == nil {
			g.serve(j)
		}
	}
}

func (g *gateway) serve(j *job) {
	defer close(j.chunks)
	body := j.body
	if j.fanout {
		var err error
		if body, err = g.withContext(j.ctx, body); err != nil {
			j.head <- head{err: err}
			return
		}
	}
	request, err := http.NewRequestWithContext(j.ctx, http.MethodPost, g.upstream+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		j.head <- head{err: err}
		return
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := g.client.Do(request)
	if err != nil {
		j.head <- head{err: err}
		return
	}
	defer response.Body.Close()
	j.head <- head{
		status:      response.StatusCode,
		contentType: response.Header.Get("Content-Type"),
		length:      response.Header.Get("Content-Length"),
	}
	size := 4096
	if response.ContentLength > int64(size) {
		size = 32 << 10
	}
	for {
		buffer := make([]byte, size)
		n, err := response.Body.Read(buffer)
		if n > 0 {
			select {
			case j.chunks <- buffer[:n]:
			case <-j.ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// withContext loads three documents side by side and puts them before the messages.
func (g *gateway) withContext(ctx context.Context, body []byte) ([]byte, error) {
	names := []string{"docs", "profile", "history"}
	texts, errs := make([]string, len(names)), make([]error, len(names))
	var wait sync.WaitGroup
	for i, name := range names {
		wait.Add(1)
		go func() {
			defer wait.Done()
			texts[i], errs[i] = g.load(ctx, name)
		}()
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	var document map[string]any
	if err := json.Unmarshal(body, &document); err != nil {
		return nil, err
	}
	messages, _ := document["messages"].([]any)
	system := map[string]any{"role": "system", "content": strings.Join(texts, "\n")}
	document["messages"] = append([]any{system}, messages...)
	return json.Marshal(document)
}

func (g *gateway) load(ctx context.Context, name string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.upstream+"/context/"+name, nil)
	if err != nil {
		return "", err
	}
	response, err := g.client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var document struct{ Text string }
	if err := json.NewDecoder(response.Body).Decode(&document); err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, response.Body) // read to its end, or the connection is not used again
	return document.Text, err
}

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	upstream := flag.String("upstream", "", "the provider's base URL")
	workers := flag.Int("workers", 20, "requests worked on at the same time")
	queue := flag.Int("queue", 100, "requests that may wait")
	flag.Parse()
	g := &gateway{
		upstream: *upstream,
		queue:    make(chan *job, *queue),
		client: &http.Client{Transport: &http.Transport{
			MaxIdleConns: 0, MaxIdleConnsPerHost: *workers * 3, IdleConnTimeout: 90 * time.Second, DisableCompression: true,
		}},
	}
	for range *workers {
		go g.work()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", g.handle(false))
	mux.HandleFunc("POST /fanout", g.handle(true))
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, mux))
}
