package petclf;

import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelPipeline;
import io.netty.channel.FixedRecvByteBufAllocator;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpRequestDecoder;
import io.netty.handler.codec.http.HttpResponse;
import io.netty.handler.codec.http.HttpResponseEncoder;
import io.netty.handler.ssl.SslContext;
import org.pytorch.serve.ServerInitializer;
import org.pytorch.serve.util.ConfigManager;
import org.pytorch.serve.util.ConnectorType;
import org.pytorch.serve.util.TokenAuthorization;
import org.slf4j.LoggerFactory;

/**
 * What a client's bytes go through: TorchServe's handlers, a farewell, and on port 8080 before them the short way for photos.
 *
 * <p>docs/decisions/0012-a-short-way-for-photos.md
 */
public final class Pipeline extends ServerInitializer {
    private static final int FIRST_LINE = 4096; // bytes, at most; this and the next are Netty's own
    private static final int HEADERS = 8192;
    static final int PIECE = 65536; // bytes that are read at once: most photos are smaller

    private final ConnectorType type;

    public Pipeline(SslContext encryption, ConnectorType type) {
        super(encryption, type);
        this.type = type;
    }

    @Override
    public void initChannel(Channel channel) {
        super.initChannel(channel);
        channel.pipeline().addFirst("farewell", new Farewell());
        if (type == ConnectorType.INFERENCE_CONNECTOR && !isMoreWanted()) {
            channel.config().setRecvByteBufAllocator(new FixedRecvByteBufAllocator(PIECE));
            Encoder encoder = new Encoder();
            ChannelPipeline pipeline = channel.pipeline();
            pipeline.replace("http", "encoder", encoder);
            pipeline.addAfter("encoder", "decoder", new HttpRequestDecoder(FIRST_LINE, HEADERS, PIECE));
            pipeline.addAfter("decoder", "photos", new Photos(encoder));
        }
    }

    /** Tell whether something is switched on that TorchServe does for each request, and the short way does not. */
    private static boolean isMoreWanted() {
        return TokenAuthorization.isEnabled()
                || ConfigManager.getInstance().getCorsAllowedOrigin() != null
                || LoggerFactory.getLogger("ACCESS_LOG").isInfoEnabled();
    }

    /**
     * Writes TorchServe's answers, and lets finished ones past.
     *
     * <p>Netty's codec for servers would keep a list of what was asked, for an answer to HEAD has no content; an answer that does
     * not go through it would leave that list growing.
     */
    static final class Encoder extends HttpResponseEncoder {
        private ChannelHandlerContext context;
        private HttpMethod asked;

        @Override
        public void handlerAdded(ChannelHandlerContext here) {
            context = here;
        }

        void isAsked(HttpMethod method) {
            asked = method;
        }

        /** Where to write an answer that is bytes already. */
        ChannelHandlerContext past() {
            return context;
        }

        @Override
        protected boolean isContentAlwaysEmpty(HttpResponse answer) {
            return asked == HttpMethod.HEAD || super.isContentAlwaysEmpty(answer);
        }
    }
}
