// The peer crypto/tls of Go.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

type report map[string]any

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func print(r report) {
	text, _ := json.Marshal(r)
	fmt.Println(string(text))
}

func cannot(why string) {
	print(report{"cannot": why})
	os.Exit(0)
}

func line(conn net.Conn, expected string) {
	got, one := "", make([]byte, 1)
	for !strings.HasSuffix(got, "\n") {
		_, err := conn.Read(one)
		check(err)
		got += string(one)
	}
	if got != expected {
		check(errors.New("expected " + expected + ", got " + got))
	}
}

func main() {
	server := os.Args[1] == "server"
	given := map[string]string{"version": "1.3", "conns": "1"}
	for _, word := range os.Args[3:] {
		name, value, _ := strings.Cut(word, "=")
		given[name] = value
	}
	config := &tls.Config{ServerName: "localhost", MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13}
	if given["version"] == "1.2" {
		config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(given["ca"])
	check(err)
	roots.AppendCertsFromPEM(pem)
	config.RootCAs, config.ClientCAs = roots, roots
	if server || given["auth"] == "1" {
		identity, err := tls.LoadX509KeyPair(given["cert"], given["key"])
		check(err)
		config.Certificates = []tls.Certificate{identity}
	}
	if server && given["auth"] == "1" {
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if given["alpn"] != "" {
		config.NextProtos = []string{given["alpn"]}
	}
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	if given["pq"] == "1" {
		config.CurvePreferences = []tls.CurveID{4588}
	}
	var listener net.Listener
	if server {
		listener, err = net.Listen("tcp", "127.0.0.1:"+os.Args[2])
		check(err)
		fmt.Println("listening", listener.Addr().(*net.TCPAddr).Port)
	}
	conns, _ := strconv.Atoi(given["conns"])
	for range conns {
		var conn net.Conn
		if server {
			conn, err = listener.Accept()
		} else {
			conn, err = net.Dial("tcp", "127.0.0.1:"+os.Args[2])
		}
		check(err)
		r := report{"received": 0, "crc": 0}
		if err := run(server, given, config, conn.(*net.TCPConn), r); err != nil {
			r["error"] = err.Error()
			switch {
			case errors.Is(err, io.ErrUnexpectedEOF):
				r["end"] = "truncated"
			case errors.Is(err, syscall.ECONNRESET):
				r["end"] = "reset"
			default:
				r["end"] = "failed"
			}
		}
		conn.Close()
		print(r)
	}
}

func run(server bool, given map[string]string, config *tls.Config, tcp *net.TCPConn, r report) error {
	if given["starttls"] == "1" {
		if server {
			tcp.Write([]byte("220 ready\r\n"))
			line(tcp, "STARTTLS\r\n")
			tcp.Write([]byte("220 go ahead\r\n"))
		} else {
			line(tcp, "220 ready\r\n")
			tcp.Write([]byte("STARTTLS\r\n"))
			line(tcp, "220 go ahead\r\n")
		}
	}
	conn := tls.Client(tcp, config)
	if server {
		conn = tls.Server(tcp, config)
	}
	if err := conn.Handshake(); err != nil {
		return err
	}
	state := conn.ConnectionState()
	r["version"] = map[uint16]string{tls.VersionTLS12: "1.2", tls.VersionTLS13: "1.3"}[state.Version]
	r["alpn"], r["resumed"], r["peer"] = nil, state.DidResume, nil
	r["group"] = state.CurveID.String()
	if state.NegotiatedProtocol != "" {
		r["alpn"] = state.NegotiatedProtocol
	}
	if len(state.PeerCertificates) > 0 {
		r["peer"] = state.PeerCertificates[0].Subject.CommonName
	}
	received, sum := 0, uint32(0)
	buffer := make([]byte, 65536)
	for _, step := range strings.Split(given["script"], " ") {
		name, value, _ := strings.Cut(step, ":")
		n, _ := strconv.Atoi(value)
		switch name {
		case "send":
			pattern := []byte(strings.Repeat("abcdefghijklmnopqrstuvwxyz", n/26+1))[:n]
			if _, err := conn.Write(pattern); err != nil {
				return err
			}
		case "tiny":
			for range n {
				if _, err := conn.Write([]byte("x")); err != nil {
					return err
				}
			}
		case "recv", "end":
			for name == "end" || n > 0 {
				most := buffer
				if name == "recv" {
					most = buffer[:min(n, len(buffer))]
				}
				got, err := conn.Read(most)
				received, sum = received+got, crc32.Update(sum, crc32.IEEETable, most[:got])
				r["received"], r["crc"] = received, sum
				n -= got
				if err == io.EOF && name == "end" {
					r["end"] = "clean"
					break
				}
				// The last bytes may come together with the end.
				if err != nil && (err != io.EOF || n > 0) {
					return err
				}
			}
		case "half":
			if err := conn.CloseWrite(); err != nil {
				return err
			}
			tcp.CloseWrite()
		case "close":
			if err := conn.Close(); err != nil {
				return err
			}
		case "fin":
			tcp.CloseWrite()
		case "abort":
			tcp.SetLinger(0)
		case "update":
			cannot("crypto/tls answers a KeyUpdate, and has no call that sends one: the methods of tls.Conn have none")
		}
	}
	return nil
}
