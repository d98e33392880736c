package petclf;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufUtil;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.DefaultHttpHeaders;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpHeaders;
import io.netty.handler.codec.http.HttpResponse;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpVersion;
import java.nio.charset.StandardCharsets;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import org.pytorch.serve.http.InternalServerException;
import org.pytorch.serve.job.Job;
import org.pytorch.serve.util.NettyUtils;
import org.pytorch.serve.util.messages.RequestInput;
import org.pytorch.serve.util.messages.WorkerCommands;

/** A photo that came the short way. Its answer is TorchServe's, header by header, but written in one piece. */
final class PhotoJob extends Job {
    private static final String ALWAYS =
            "Pragma: no-cache\r\n"
                    + "Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
                    + "Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
                    + "connection: keep-alive\r\n"
                    + "content-length: ";
    private static final int ROOM = 1024; // bytes; more than most headers take
    private static final String FULL =
            "{\n  \"code\": 503,\n  \"type\": \"ServiceUnavailableException\",\n  \"message\": \"Too many requests wait.\"\n}\n";
    private static final byte[] REFUSAL =
            ("HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n" + ALWAYS + FULL.length() + "\r\n\r\n" + FULL)
                    .getBytes(StandardCharsets.US_ASCII);
    private static final Set<String> OURS = new TreeSet<>(String.CASE_INSENSITIVE_ORDER);

    static {
        OURS.addAll(List.of("x-request-id", "pragma", "cache-control", "expires", "connection", "content-length"));
    }

    private final ChannelHandlerContext client;
    private final PhotoMetrics metrics;

    PhotoJob(ChannelHandlerContext client, String name, String version, RequestInput input, PhotoMetrics metrics) {
        super(name, version, WorkerCommands.PREDICT, input);
        this.client = client;
        this.metrics = metrics;
    }

    /** Return an id that tells requests apart; it is no secret. */
    static String newId() {
        ThreadLocalRandom random = ThreadLocalRandom.current();
        long version4 = random.nextLong() & ~0xF000L | 0x4000L;
        return new UUID(version4, random.nextLong() & ~(3L << 62) | 1L << 63).toString();
    }

    /** Tell a client that there is no room; nothing is known of its photo but that it came. */
    static void refuse(ChannelHandlerContext client, PhotoMetrics metrics) {
        client.writeAndFlush(Unpooled.wrappedBuffer(REFUSAL));
        metrics.answered(HttpResponseStatus.SERVICE_UNAVAILABLE.code());
    }

    @Override
    public void response(byte[] body, CharSequence type, int code, String phrase, Map<String, String> told) {
        long taken = System.nanoTime() - getBegin();
        HttpResponseStatus status = phrase == null ? HttpResponseStatus.valueOf(code) : new HttpResponseStatus(code, phrase);
        HttpHeaders headers = headers(type, told);
        if (hasContent(code)) {
            client.writeAndFlush(answer(status, headers, body));
            metrics.answered(code);
        } else { // Netty knows what such an answer lacks
            HttpResponse answer = new DefaultFullHttpResponse(HttpVersion.HTTP_1_1, status);
            answer.headers().set(headers).set("x-request-id", getJobId());
            NettyUtils.sendHttpResponse(client, answer, true);
        }
        long waited = getScheduled() - getBegin();
        metrics.add(metrics.latency, taken / 1000.0);
        metrics.add(metrics.queueLatency, waited / 1000.0);
        metrics.tell(metrics.queueTime, TimeUnit.NANOSECONDS.toMillis(waited));
    }

    private static boolean hasContent(int code) {
        return code >= 200 && code != 204 && code != 205 && code != 304;
    }

    /** Return the worker's headers, but for those that are not its to choose; one that cannot be sent is an exception. */
    private static HttpHeaders headers(CharSequence type, Map<String, String> told) {
        HttpHeaders headers = new DefaultHttpHeaders();
        if (type != null && type.length() > 0) {
            headers.set(HttpHeaderNames.CONTENT_TYPE, type);
        }
        told.forEach((name, value) -> {
            if (!OURS.contains(name)) {
                headers.set(name, value);
            }
        });
        return headers;
    }

    private ByteBuf answer(HttpResponseStatus status, HttpHeaders headers, byte[] body) {
        ByteBuf answer = client.alloc().ioBuffer(ROOM + body.length);
        write(answer, "HTTP/1.1 ", status.toString());
        write(answer, "\r\nx-request-id: ", getJobId());
        for (Iterator<Map.Entry<CharSequence, CharSequence>> each = headers.iteratorCharSequence(); each.hasNext(); ) {
            Map.Entry<CharSequence, CharSequence> header = each.next();
            write(answer, "\r\n", header.getKey());
            write(answer, ": ", header.getValue());
        }
        write(answer, "\r\n", ALWAYS);
        write(answer, Integer.toString(body.length), "\r\n\r\n");
        return answer.writeBytes(body);
    }

    private static void write(ByteBuf answer, CharSequence first, CharSequence second) {
        ByteBufUtil.writeAscii(answer, first);
        ByteBufUtil.writeAscii(answer, second);
    }

    @Override
    public void sendError(int code, String error) {
        int sent = code == 413 ? HttpResponseStatus.INSUFFICIENT_STORAGE.code() : code; // as TorchServe does
        NettyUtils.sendError(client, HttpResponseStatus.valueOf(sent), new InternalServerException(error));
    }

    @Override
    public boolean isOpen() {
        return client.channel().isOpen();
    }
}
