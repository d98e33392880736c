package petclf;

import io.netty.channel.ChannelDuplexHandler;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelPromise;
import io.netty.channel.socket.DuplexChannel;
import io.netty.util.ReferenceCountUtil;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/**
 * Hangs up in two steps: first nothing more is said, then nothing more is heard.
 *
 * <p>A client that still sends when a connection is closed is told that it was reset, and never sees the answer that came just
 * before: why its request was refused. docs/decisions/0009-refused-not-hung-up-on.md
 */
final class Farewell extends ChannelDuplexHandler {
    private static final int SECONDS = 2; // for the client to read the answer and to hang up too

    private boolean isLeaving;

    @Override
    public void close(ChannelHandlerContext context, ChannelPromise promise) {
        if (isLeaving || !context.channel().isActive()) {
            context.close(promise);
            return;
        }
        isLeaving = true;
        ((DuplexChannel) context.channel()).shutdownOutput();
        Future<?> end = context.executor().schedule(() -> context.close(promise), SECONDS, TimeUnit.SECONDS);
        context.channel().closeFuture().addListener(closed -> {
            end.cancel(false);
            promise.trySuccess();
        });
    }

    @Override
    public void channelRead(ChannelHandlerContext context, Object message) {
        if (isLeaving) {
            ReferenceCountUtil.release(message);
        } else {
            context.fireChannelRead(message);
        }
    }
}
