package petclf;

import io.netty.channel.ChannelFuture;
import io.netty.channel.EventLoopGroup;
import io.netty.util.internal.logging.InternalLoggerFactory;
import io.netty.util.internal.logging.Slf4JLoggerFactory;
import java.io.IOException;
import java.security.GeneralSecurityException;
import java.util.concurrent.TimeUnit;
import org.apache.commons.cli.DefaultParser;
import org.pytorch.serve.ModelServer;
import org.pytorch.serve.metrics.MetricCache;
import org.pytorch.serve.servingsdk.impl.PluginsManager;
import org.pytorch.serve.util.ConfigManager;
import org.pytorch.serve.util.Connector;
import org.pytorch.serve.util.ConnectorType;
import org.pytorch.serve.util.TokenAuthorization;

/**
 * TorchServe, with one thread (number_of_netty_threads) that reads and writes for the clients of 8080 and for the workers alike.
 *
 * <p>Management has threads of its own, as before: registering a version with `synchronous=true` holds its thread until workers
 * are there. docs/decisions/0010-one-thread-for-photos.md
 */
public final class Server extends ModelServer {
    private static EventLoopGroup photos;

    private Server(ConfigManager config) {
        super(config);
        photos = Connector.newEventLoopGroup(config.getNettyThreads());
    }

    static EventLoopGroup photos() {
        return photos;
    }

    static boolean isEnding() {
        return photos.isShuttingDown();
    }

    @Override
    public ChannelFuture initializeServer(Connector connector, EventLoopGroup accepting, EventLoopGroup working, ConnectorType type)
            throws InterruptedException, IOException, GeneralSecurityException {
        return super.initializeServer(connector, accepting, type == ConnectorType.INFERENCE_CONNECTOR ? photos : working, type);
    }

    /** Let clients' connections go before the models: to a gateway, a lost connection means to ask another, and 404 is an answer. */
    @Override
    public void stop() {
        photos.shutdownGracefully(0, 5, TimeUnit.SECONDS).awaitUninterruptibly();
        super.stop();
    }

    /** Nobody asks over gRPC here. */
    @Override
    public void startGRPCServers() {}

    /** Do what ModelServer.main does. */
    public static void main(String[] args) {
        try {
            ConfigManager.init(new ConfigManager.Arguments(new DefaultParser().parse(ConfigManager.Arguments.getOptions(), args, null, false)));
            TokenAuthorization.init();
            PluginsManager.getInstance().initialize();
            MetricCache.init();
            InternalLoggerFactory.setDefaultFactory(Slf4JLoggerFactory.INSTANCE);
            Server server = new Server(ConfigManager.getInstance());
            Runtime.getRuntime().addShutdownHook(new Thread(server::stop));
            server.startAndWait();
        } catch (IllegalArgumentException reason) {
            System.out.println("Invalid configuration: " + reason.getMessage());
        } catch (Throwable reason) {
            reason.printStackTrace();
        } finally {
            System.exit(1);
        }
    }
}
