// Go's crypto/tls in the same workloads: peer ID SCALE, one line of JSON. No modules beyond the standard library.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The time for which requests and connections are counted in a full run, in seconds.
const full = 0.4

// Whether the run has no warm-up.
var cold = os.Getenv("BENCH_COLD") != ""

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type peer struct {
	client, server *tls.Config
	hot, resume    bool
	listener       net.Listener
	version        uint16
}

func (p *peer) control(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		check(syscall.SetsockoptString(int(fd), syscall.IPPROTO_TCP, 13, "cubic")) // TCP_CONGESTION
		if p.hot {
			check(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 256<<10))
		}
	})
}

func newPeer(id []string) *peer {
	p := &peer{version: tls.VersionTLS13}
	for _, part := range id {
		p.hot = p.hot || part == "hot"
		p.resume = p.resume || part == "resumed"
		if part == "tls12" {
			p.version = tls.VersionTLS12
		}
	}
	var pems []string
	check(json.Unmarshal([]byte(os.Getenv("BENCH_PKI")), &pems))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(pems[0]))
	cert := must(tls.X509KeyPair([]byte(pems[1]), []byte(pems[2])))
	// TLS 1.2 requires that the certificate's curve is in the list too.
	curves := []tls.CurveID{tls.X25519}
	if p.version == tls.VersionTLS12 {
		curves = append(curves, tls.CurveP256)
	}
	suites := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	p.client = &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: p.version, MaxVersion: p.version,
		CurvePreferences: curves, CipherSuites: suites}
	p.server = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: p.version, MaxVersion: p.version,
		CurvePreferences: curves, CipherSuites: suites, SessionTicketsDisabled: !p.resume}
	if p.resume {
		p.client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	}
	config := net.ListenConfig{Control: p.control}
	p.listener = must(config.Listen(context.Background(), "tcp4", "127.0.0.1:0"))
	return p
}

func (p *peer) pair() (*net.TCPConn, *net.TCPConn) {
	dialer := net.Dialer{Control: p.control}
	accepted := make(chan net.Conn, 1)
	go func() { accepted <- must(p.listener.Accept()) }()
	client := must(dialer.Dial("tcp4", p.listener.Addr().String()))
	return client.(*net.TCPConn), (<-accepted).(*net.TCPConn) // no-delay is Go's default
}

// Both ends of a session, checked.
func (p *peer) connect(client, server net.Conn, resumed bool) (*tls.Conn, *tls.Conn) {
	there := tls.Server(server, p.server)
	done := make(chan struct{})
	go func() { check(there.Handshake()); close(done) }()
	here := tls.Client(client, p.client)
	check(here.Handshake())
	<-done
	state := here.ConnectionState()
	suite := tls.CipherSuiteName(state.CipherSuite)
	if state.Version != p.version || !strings.Contains(suite, "AES_128_GCM") || state.DidResume != resumed {
		check(fmt.Errorf("agreed on %x %s, resumed: %v", state.Version, suite, state.DidResume))
	}
	return here, there
}

type mark struct {
	at           time.Time
	user, system float64
}

func now() mark {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return mark{time.Now(), seconds(usage.Utime), seconds(usage.Stime)}
}

func (m mark) sample(units float64) map[string]any {
	end := now()
	return map[string]any{"units": units, "wall": end.at.Sub(m.at).Seconds(), "user": end.user - m.user,
		"system": end.system - m.system}
}

func bulk(p *peer, size, count int, up bool, units float64) map[string]any {
	client, server := p.pair()
	from, to := p.connect(client, server, false)
	if !up {
		from, to = to, from
	}
	warm := max(count/16, 1)
	if cold {
		warm = 1
	}
	begin, read := make(chan struct{}), make(chan struct{})
	drain := func(bytes int) {
		buf := make([]byte, 64<<10)
		for bytes > 0 {
			bytes -= must(to.Read(buf))
		}
	}
	go func() { drain(warm * size); close(begin); drain(count * size); close(read) }()
	chunk := make([]byte, size)
	for i := 0; i < warm; i++ {
		must(from.Write(chunk))
	}
	<-begin
	start := now()
	for i := 0; i < count; i++ {
		must(from.Write(chunk))
	}
	<-read
	return start.sample(units)
}

func requests(p *peer, size, connections int, scale float64) map[string]any {
	var warm, done sync.WaitGroup
	warm.Add(connections)
	done.Add(connections)
	begin := make(chan struct{})
	all := make([][]float64, connections)
	for i := 0; i < connections; i++ {
		near, far := p.pair()
		client, server := p.connect(near, far, false)
		go func() {
			buf := make([]byte, size)
			for {
				if _, err := io.ReadFull(server, buf); err != nil {
					return
				}
				must(server.Write(buf))
			}
		}()
		go func(i int) {
			if !cold {
				ask(client, size, 0.1)
			}
			warm.Done()
			<-begin
			all[i] = ask(client, size, full*scale)
			done.Done()
		}(i)
	}
	warm.Wait()
	start := now()
	close(begin)
	done.Wait()
	var latencies []float64
	for _, some := range all {
		latencies = append(latencies, some...)
	}
	sample := start.sample(float64(len(latencies)))
	sort.Float64s(latencies)
	sample["p50"], sample["p99"] = latencies[len(latencies)/2], latencies[len(latencies)*99/100]
	return sample
}

// Latencies, in microseconds.
func ask(client net.Conn, size int, seconds float64) []float64 {
	request, response := make([]byte, size), make([]byte, size)
	latencies := make([]float64, 0, 4096)
	begin := time.Now()
	for last := begin; last.Sub(begin).Seconds() < seconds; {
		must(client.Write(request))
		must(io.ReadFull(client, response))
		end := time.Now()
		latencies = append(latencies, float64(end.Sub(last).Nanoseconds())/1e3)
		last = end
	}
	return latencies
}

func forAWhile(scale float64, one func()) map[string]any {
	for i := 0; i < 20; i++ {
		one()
	}
	start, count := now(), 0
	for time.Since(start.at).Seconds() < full*scale {
		one()
		count++
	}
	return start.sample(float64(count))
}

func handshake(p *peer, resumed bool) {
	near, far := p.pair()
	check(near.SetLinger(0))
	client, server := p.connect(near, far, resumed)
	must(server.Write([]byte("!")))
	must(io.ReadFull(client, make([]byte, 1)))
	near.Close() // without close_notify, as in the other peers
	far.Close()
}

func expect(conn net.Conn, line string) {
	got := make([]byte, len(line))
	must(io.ReadFull(conn, got))
	if string(got) != line {
		check(fmt.Errorf("%q was expected", line))
	}
}

func live(p *peer, upgrade bool) {
	near, far := p.pair()
	if upgrade {
		go func() {
			must(io.WriteString(far, "220 bench\r\n"))
			expect(far, "STARTTLS\r\n")
			must(io.WriteString(far, "220 go ahead\r\n"))
		}()
		expect(near, "220 bench\r\n")
		must(io.WriteString(near, "STARTTLS\r\n"))
		expect(near, "220 go ahead\r\n")
	}
	client, server := p.connect(near, far, false)
	end := func(session *tls.Conn, tcp *net.TCPConn) { check(session.CloseWrite()); check(tcp.CloseWrite()) }
	done := make(chan struct{})
	go func() {
		must(server.Write(must(io.ReadAll(server))))
		end(server, far)
		server.Close()
		close(done)
	}()
	must(client.Write(make([]byte, 1024)))
	end(client, near)
	if len(must(io.ReadAll(client))) != 1024 {
		check(fmt.Errorf("the response is not the request"))
	}
	client.Close()
	<-done
}

// A server whose clients run in another process. They exchange one message and then wait for the next one, or they do
// not read, and the server writes to them.
func memory(p *peer, name string, count int, stall bool) map[string]any {
	const first = 64
	clients := exec.Command(os.Getenv("BENCH_CLIENTS"), "clients", name, p.listener.Addr().String(),
		strconv.Itoa(first+count), "tls")
	signal := must(clients.StdinPipe())
	clients.Stderr = os.Stderr
	check(clients.Start())
	var progress int64
	ready := make(chan struct{}, first+count)
	serve := func(conn *tls.Conn) {
		message := make([]byte, 64)
		must(io.ReadFull(conn, message))
		must(conn.Write(message))
		ready <- struct{}{}
		for stall {
			if _, err := conn.Write(zeros); err != nil {
				return
			}
			atomic.AddInt64(&progress, 1)
		}
		conn.Read(message)
	}
	begin := func(count int) {
		for i := 0; i < count; i++ {
			go serve(tls.Server(must(p.listener.Accept()), p.server))
		}
		for i := 0; i < count; i++ {
			<-ready
		}
		for last := int64(-1); last != atomic.LoadInt64(&progress); time.Sleep(200 * time.Millisecond) {
			last = atomic.LoadInt64(&progress)
		}
	}
	start := now()
	begin(first)
	resident, heap := held()
	must(signal.Write([]byte("\n")))
	begin(count)
	residentThen, heapThen := held()
	sample := start.sample(float64(count))
	sample["resident"] = (residentThen - resident) / float64(count)
	sample["heap"] = (heapThen - heap) / float64(count)
	signal.Close()
	check(clients.Wait())
	return sample
}

// The resident bytes, and the bytes in use on heap and stacks, after unused memory was returned to the system.
func held() (float64, float64) {
	debug.FreeOSMemory()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	pages := must(strconv.Atoi(strings.Fields(string(must(os.ReadFile("/proc/self/statm"))))[1]))
	return float64(pages * os.Getpagesize()), float64(stats.HeapAlloc + stats.StackInuse)
}

var zeros = make([]byte, 16<<10)

func max(a, b int) int {
	if a > b {
		return a
	}
	return b
}

func main() {
	id := strings.Split(os.Args[1], "/")
	scale := must(strconv.ParseFloat(os.Args[2], 64))
	p := newPeer(id)
	var sample map[string]any
	switch id[0] {
	case "bulk":
		size := must(strconv.Atoi(strings.TrimSuffix(id[1], "k"))) << 10
		bytes := max(int(float64(1<<29)*scale), 64<<20) / size * size
		sample = bulk(p, size, bytes/size, id[2] == "up", float64(bytes)/(1<<30))
	case "small":
		count := int(1e6 * scale)
		if !cold {
			count = max(count, 100_000)
		}
		sample = bulk(p, 100, count, true, float64(count)/1e6)
	case "pingpong":
		sample = requests(p, must(strconv.Atoi(id[1])), must(strconv.Atoi(id[2])), scale)
	case "handshake":
		if p.resume {
			handshake(p, false)
		}
		sample = forAWhile(scale, func() { handshake(p, p.resume) })
	case "churn":
		sample = forAWhile(scale, func() { live(p, false) })
	case "upgrade":
		sample = forAWhile(scale, func() { live(p, true) })
	case "idle":
		sample = memory(p, os.Args[1], max(int(must(strconv.ParseFloat(id[1], 64))*scale), 500), false)
	case "stalled":
		sample = memory(p, os.Args[1], max(int(must(strconv.ParseFloat(id[1], 64))*scale), 100), true)
	default:
		check(fmt.Errorf("%s is not there in Go", os.Args[1]))
	}
	fmt.Println(string(must(json.Marshal(sample))))
}
