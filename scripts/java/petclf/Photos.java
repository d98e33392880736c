package petclf;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.handler.codec.http.HttpContent;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpHeaderValues;
import io.netty.handler.codec.http.HttpHeaders;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpRequest;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.LastHttpContent;
import io.netty.util.AsciiString;
import java.util.Arrays;
import java.util.Iterator;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.pytorch.serve.archive.model.ModelException;
import org.pytorch.serve.archive.model.ModelVersionNotFoundException;
import org.pytorch.serve.http.ServiceUnavailableException;
import org.pytorch.serve.util.ConfigManager;
import org.pytorch.serve.util.NettyUtils;
import org.pytorch.serve.util.messages.InputParameter;
import org.pytorch.serve.util.messages.RequestInput;
import org.pytorch.serve.wlm.Model;
import org.pytorch.serve.wlm.ModelManager;

/**
 * The short way: a photo that is the body of a request for a model goes to the model's queue at once, or is refused at once.
 *
 * <p>Whatever is not that plain goes on to TorchServe's handlers: a form, a query, a body whose length is not known, a model that
 * is not there. One of these reads for each connection, a request after the other. docs/decisions/0012-a-short-way-for-photos.md
 */
final class Photos extends ChannelInboundHandlerAdapter {
    private static final Pattern PATH = Pattern.compile("/predictions/([\\w.-]+)(?:/([\\w.-]+))?");
    private static final AsciiString MULTIPART = AsciiString.cached("multipart/");
    private static final AsciiString FORM = HttpHeaderValues.APPLICATION_X_WWW_FORM_URLENCODED;
    private static final byte[] NOTHING = {};

    private final Pipeline.Encoder encoder;

    // what this connection asked for last; most ask for the same again
    private String path;
    private String name;
    private String version;
    private PhotoMetrics metrics;

    // the request that comes in
    private HttpRequest request;
    private Model model;
    private byte[] body; // nothing when it is refused: what still comes of it is dropped
    private int length;

    Photos(Pipeline.Encoder encoder) {
        this.encoder = encoder;
    }

    @Override
    public void channelRead(ChannelHandlerContext context, Object message) throws Exception {
        if (message instanceof HttpRequest) {
            begin((HttpRequest) message);
        }
        if (request == null) {
            context.fireChannelRead(message instanceof HttpContent ? alone((HttpContent) message) : message);
        } else if (message instanceof HttpContent) {
            add((HttpContent) message);
            if (message instanceof LastHttpContent) {
                end(context);
            }
        }
    }

    /** Take this request if the short way is for it. */
    private void begin(HttpRequest asked) {
        encoder.isAsked(asked.method());
        request = null;
        model = isPlain(asked) && names(asked.uri()) ? find() : null;
        if (model != null) {
            request = asked;
            body = model.getJobQueueRemainingCapacity() > 0 ? NOTHING : null;
            length = 0;
        }
    }

    /** Tell whether the body, of a known length within the limit, is a photo and nothing else. */
    private static boolean isPlain(HttpRequest asked) {
        HttpHeaders headers = asked.headers();
        String type = headers.get(HttpHeaderNames.CONTENT_TYPE, "");
        long whole = asked.decoderResult().isSuccess() ? HttpUtil.getContentLength(asked, -1L) : -1;
        return (asked.method() == HttpMethod.POST || asked.method() == HttpMethod.PUT)
                && whole >= 0
                && whole <= ConfigManager.getInstance().getMaxRequestSize()
                && !headers.contains(HttpHeaderNames.EXPECT)
                && !AsciiString.regionMatches(type, true, 0, MULTIPART, 0, MULTIPART.length())
                && !AsciiString.regionMatches(type, true, 0, FORM, 0, FORM.length());
    }

    /** Read a model's name and perhaps its version out of a path; false if it holds anything else. */
    private boolean names(String asked) {
        if (!asked.equals(path)) {
            Matcher parts = PATH.matcher(asked);
            if (!parts.matches()) {
                return false;
            }
            path = asked;
            name = parts.group(1);
            version = parts.group(2);
            metrics = new PhotoMetrics(name, version);
        }
        return true;
    }

    /** Return the model, if there is one whose requests are independent of each other. */
    private Model find() {
        try {
            Model found = ModelManager.getInstance().getModel(name, version);
            return found == null || found.isSequenceBatching() ? null : found;
        } catch (ModelVersionNotFoundException none) {
            return null;
        }
    }

    /** Return a piece for TorchServe to keep: as it is, a few bytes of a slow client would keep all the room they were read into. */
    private static HttpContent alone(HttpContent message) {
        int size = message.content().readableBytes();
        if (size == 0 || size > Pipeline.PIECE / 2) {
            return message;
        }
        HttpContent copy = message.replace(Unpooled.copiedBuffer(message.content()));
        message.release();
        return copy;
    }

    /** Copy a piece of the body; what is announced gets no more room than twice what has come. */
    private void add(HttpContent message) {
        ByteBuf piece = message.content();
        if (body != null) {
            int after = length + piece.readableBytes();
            if (after > body.length) {
                body = Arrays.copyOf(body, (int) Math.min(HttpUtil.getContentLength(request), 2L * after));
            }
            piece.getBytes(piece.readerIndex(), body, length, piece.readableBytes());
            length = after;
        }
        message.release();
    }

    /** Queue the photo, or refuse it. */
    private void end(ChannelHandlerContext context) {
        HttpRequest asked = request;
        byte[] photo = body;
        request = null;
        body = null;
        metrics.count(metrics.requests);
        if (photo == null) {
            PhotoJob.refuse(encoder.past(), metrics);
            return;
        }
        RequestInput input = new RequestInput(PhotoJob.newId());
        input.setClientExpireTS(model.getClientTimeoutInMills());
        tellHeaders(asked, input.getHeaders());
        input.addParameter(new InputParameter("body", photo, HttpUtil.getMimeType(asked)));
        try {
            if (!ModelManager.getInstance().addJob(new PhotoJob(encoder.past(), name, version, input, metrics))) {
                Exception refusal = new ServiceUnavailableException("Too many requests wait, or the model has no worker.");
                NettyUtils.sendError(context, HttpResponseStatus.SERVICE_UNAVAILABLE, refusal);
            }
        } catch (ModelException gone) { // while the photo came
            NettyUtils.sendError(context, HttpResponseStatus.NOT_FOUND, gone);
        }
    }

    /** Tell the worker what TorchServe tells it: the client's headers, and two of its own that replace them. */
    private static void tellHeaders(HttpRequest asked, Map<String, String> told) {
        for (Iterator<Map.Entry<String, String>> each = asked.headers().iteratorAsString(); each.hasNext(); ) {
            Map.Entry<String, String> header = each.next();
            told.put(header.getKey(), header.getValue());
        }
        told.put("url_path", "");
        told.put("explain", "False");
    }
}
