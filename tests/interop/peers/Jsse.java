// The peer JSSE of Java, with `SSLSocket`.
import java.io.*;
import java.net.*;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.*;
import java.util.zip.CRC32;
import javax.net.ssl.*;

class Jsse {
    static final Map<String, String> given = new HashMap<>(Map.of("version", "1.3", "conns", "1", "alpn", ""));
    static boolean server;
    static String end, error;
    static long received;
    static CRC32 crc;

    static String quoted(String text) {
        return text == null ? "null" : '"' + text.replace('"', ' ').replace('\\', ' ').replace('\n', ' ') + '"';
    }

    static void cannot(String why) {
        System.out.println("{\"cannot\":" + quoted(why) + "}");
        System.exit(0);
    }

    static boolean is(String name) {
        return "1".equals(given.get(name));
    }

    static SSLContext context() throws Exception {
        var certs = CertificateFactory.getInstance("X.509");
        var trust = KeyStore.getInstance("PKCS12");
        trust.load(null, null);
        try (var file = new FileInputStream(given.get("ca"))) {
            trust.setCertificateEntry("ca", certs.generateCertificate(file));
        }
        var trusted = TrustManagerFactory.getInstance("PKIX");
        trusted.init(trust);
        KeyManager[] keys = null;
        if (server || is("auth")) {
            var store = KeyStore.getInstance("PKCS12");
            store.load(null, null);
            String pem = Files.readString(Path.of(given.get("key"))).replaceAll("-----[A-Z ]*-----|\\s", "");
            var key = KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(pem)));
            try (var file = new FileInputStream(given.get("cert"))) {
                var chain = certs.generateCertificates(file).toArray(new java.security.cert.Certificate[0]);
                store.setKeyEntry("us", key, new char[0], chain);
            }
            var made = KeyManagerFactory.getInstance("PKIX");
            made.init(store, new char[0]);
            keys = made.getKeyManagers();
        }
        var context = SSLContext.getInstance("TLS");
        context.init(keys, trusted.getTrustManagers(), null);
        return context;
    }

    static void line(InputStream in, String expected) throws IOException {
        var got = new StringBuilder();
        for (int c; got.indexOf("\n") < 0 && (c = in.read()) >= 0; ) got.append((char) c);
        if (!got.toString().equals(expected)) throw new IOException("expected " + expected + ", got " + got);
    }

    static void dialogue(Socket tcp) throws IOException {
        var out = tcp.getOutputStream();
        var in = tcp.getInputStream();
        if (server) {
            out.write("220 ready\r\n".getBytes());
            line(in, "STARTTLS\r\n");
            out.write("220 go ahead\r\n".getBytes());
        } else {
            line(in, "220 ready\r\n");
            out.write("STARTTLS\r\n".getBytes());
            line(in, "220 go ahead\r\n");
        }
    }

    public static void main(String[] args) throws Exception {
        server = args[0].equals("server");
        int port = Integer.parseInt(args[1]);
        for (int i = 2; i < args.length; i++) given.put(args[i].split("=", 2)[0], args[i].split("=", 2)[1]);
        var context = context();
        ServerSocket listener = null;
        if (server) {
            listener = new ServerSocket(port, 8, InetAddress.getLoopbackAddress());
            System.out.println("listening " + listener.getLocalPort());
        }
        for (int i = 0; i < Integer.parseInt(given.get("conns")); i++) {
            end = error = null;
            received = 0;
            crc = new CRC32();
            var facts = new StringBuilder();
            try (var tcp = server ? listener.accept() : new Socket(InetAddress.getLoopbackAddress(), port)) {
                tcp.setTcpNoDelay(true);
                if (is("starttls")) dialogue(tcp);
                run(context, tcp, facts);
            } catch (SSLException | EOFException | SocketException problem) {
                String text = problem.toString();
                end = text.contains("Connection reset") ? "reset" : text.contains("close_notify") ? "truncated" : "failed";
                error = text;
            }
            System.out.println("{" + facts + "\"end\":" + quoted(end) + (error == null ? "" : ",\"error\":" + quoted(error))
                + ",\"received\":" + received + ",\"crc\":" + crc.getValue() + "}");
        }
    }

    static void run(SSLContext context, Socket tcp, StringBuilder facts) throws IOException {
        var tls = (SSLSocket) context.getSocketFactory().createSocket(tcp, "localhost", tcp.getPort(), false);
        tls.setUseClientMode(!server);
        tls.setNeedClientAuth(server && is("auth"));
        tls.setEnabledProtocols(new String[] {"TLSv" + given.get("version")});
        var parameters = tls.getSSLParameters();
        if (!server) parameters.setEndpointIdentificationAlgorithm("HTTPS");
        if (!given.get("alpn").isEmpty()) parameters.setApplicationProtocols(new String[] {given.get("alpn")});
        if (is("pq")) {
            // `setNamedGroups` came with Java 20.
            try {
                var set = SSLParameters.class.getMethod("setNamedGroups", String[].class);
                set.invoke(parameters, (Object) new String[] {"X25519MLKEM768"});
            } catch (ReflectiveOperationException problem) {
                cannot("Java " + System.getProperty("java.version") + ": no method SSLParameters.setNamedGroups, and the group is unknown");
            }
        }
        tls.setSSLParameters(parameters);
        long begun = System.currentTimeMillis();
        tls.startHandshake();
        var session = tls.getSession();
        String peer = null;
        try {
            String subject = ((X509Certificate) session.getPeerCertificates()[0]).getSubjectX500Principal().getName();
            peer = subject.replaceFirst(".*CN=([^,]*).*", "$1");
        } catch (SSLPeerUnverifiedException none) {
            // The client has no certificate.
        }
        // JSSE does not report whether a session was resumed. A session that is older than the connection was resumed.
        facts.append("\"version\":" + quoted(session.getProtocol().substring(4)) + ",\"alpn\":"
            + quoted(tls.getApplicationProtocol().isEmpty() ? null : tls.getApplicationProtocol())
            + ",\"resumed\":" + (session.getCreationTime() < begun) + ",\"peer\":" + quoted(peer) + ",");
        var in = tls.getInputStream();
        var out = tls.getOutputStream();
        byte[] buffer = new byte[65536];
        for (String step : given.get("script").split(" ")) {
            String name = step.split(":")[0];
            int n = step.contains(":") ? Integer.parseInt(step.split(":")[1]) : 0;
            switch (name) {
                case "send" -> {
                    byte[] pattern = new byte[n];
                    for (int i = 0; i < n; i++) pattern[i] = (byte) ('a' + i % 26);
                    out.write(pattern);
                }
                case "tiny" -> {
                    for (int i = 0; i < n; i++) out.write('x');
                }
                case "recv", "end" -> {
                    while (name.equals("end") || n > 0) {
                        int got = in.read(buffer, 0, name.equals("end") ? buffer.length : Math.min(n, buffer.length));
                        if (got < 0) {
                            if (name.equals("recv")) throw new EOFException("a clean end, too early");
                            end = "clean";
                            break;
                        }
                        received += got;
                        crc.update(buffer, 0, got);
                        n -= got;
                    }
                }
                case "half" -> {
                    tls.shutdownOutput();
                    tcp.shutdownOutput();
                }
                case "close" -> tls.close();
                case "fin" -> tcp.shutdownOutput();
                case "abort" -> {
                    tcp.setSoLinger(true, 0);
                    tcp.close();
                }
                // In TLS 1.3, a further handshake on an established connection is a KeyUpdate with a request.
                case "update" -> tls.startHandshake();
            }
        }
    }
}
