package petclf;

import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.SimpleChannelInboundHandler;
import java.lang.reflect.Field;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import org.pytorch.serve.job.Job;
import org.pytorch.serve.util.ConfigManager;
import org.pytorch.serve.util.messages.BaseModelRequest;
import org.pytorch.serve.util.messages.ModelInferenceRequest;
import org.pytorch.serve.util.messages.ModelWorkerResponse;
import org.pytorch.serve.util.messages.Predictions;
import org.pytorch.serve.util.messages.WorkerCommands;
import org.pytorch.serve.wlm.BatchAggregator;
import org.pytorch.serve.wlm.Model;
import org.pytorch.serve.wlm.ModelManager;
import org.pytorch.serve.wlm.WorkerInitializationException;
import org.pytorch.serve.wlm.WorkerState;
import org.pytorch.serve.wlm.WorkerStateListener;
import org.pytorch.serve.wlm.WorkerThread;

/**
 * A worker to whom batches are sent, and whose answers are passed on, by the thread that reads the requests.
 *
 * <p>TorchServe's own worker has a thread that waits for a batch, has another one write it, waits for the answer and has a fourth
 * write that: a photo is handed on five times, and every time a sleeping thread must be woken. Here the thread ends its waiting
 * once the model is loaded, and only watches the time. All else is TorchServe's: starting and loading, restarting after a
 * failure, ending. docs/decisions/0010-one-thread-for-photos.md
 */
public final class DirectWorker extends WorkerThread implements Dispatcher.Taker {
    private static final int WATCH = 250; // milliseconds between looks at the time

    private final Dispatcher dispatcher;
    private Channel channel; // while there is one to serve; guarded by this, as are the next two and `req`
    private List<Job> batch; // that the worker has in hand
    private long since; // nanoseconds

    /** TorchServe passes a group of threads and an aggregator in; this one has its own. */
    public DirectWorker(
            ConfigManager config, EventLoopGroup unused, int port, int gpuId, Model model, BatchAggregator unusedToo, WorkerStateListener listener) {
        super(config, Server.photos(), port, gpuId, model, new Jobs(model), listener);
        ((Jobs) aggregator).worker = this;
        dispatcher = dispatcherOf(model);
    }

    /** Return the queue that scripts/dispatch.py gives to a model. */
    private static Dispatcher dispatcherOf(Model model) {
        try {
            Field queues = Model.class.getDeclaredField("jobsDb");
            queues.setAccessible(true);
            return (Dispatcher) ((Map<?, ?>) queues.get(model)).get(Model.DEFAULT_DATA_QUEUE);
        } catch (ReflectiveOperationException impossible) { // its class is known by its digest
            throw new IllegalStateException(impossible);
        }
    }

    @Override
    public int most() {
        return model.getBatchSize();
    }

    @Override
    public boolean take(List<Job> jobs) {
        ModelInferenceRequest request = new ModelInferenceRequest(model.getModelName());
        for (Job job : jobs) {
            job.setScheduled();
            request.setCommand(job.getCmd());
            request.addRequest(job.getPayload());
        }
        Channel to;
        synchronized (this) {
            if (channel == null || batch != null) {
                return false;
            }
            to = channel;
            batch = jobs;
            since = System.nanoTime();
            req = request; // what TorchServe answers with an error when the worker ends
        }
        to.writeAndFlush(request, to.voidPromise());
        return true;
    }

    /** Return what the worker has in hand, if anything, and take it from there: whoever does so answers for it. */
    private synchronized List<Job> release() {
        List<Job> jobs = batch;
        batch = null;
        if (jobs != null) {
            req = null;
        }
        return jobs;
    }

    /** Serve until the worker ends, is ended, or takes too long. */
    private void serve() throws InterruptedException, ExecutionException {
        Channel loaded = backendChannel.get(0);
        loaded.pipeline().replace(loaded.pipeline().last(), "answers", new Answers());
        synchronized (this) {
            channel = loaded;
        }
        try {
            dispatcher.isFree(this);
            while (!isLate()) {
                Thread.sleep(WATCH);
            }
            logger.error("Worker {} gave no answer for {} seconds; consecutive failures: {}", workerId, responseTimeout, model.incrFailedInfReqs());
            throw new ExecutionException(new WorkerInitializationException("Backend worker did not respond in given time"));
        } finally {
            synchronized (this) {
                channel = null;
            }
            leave();
        }
    }

    /** Take nothing more; the last one refuses what waits. */
    private void leave() {
        dispatcher.hasEnded(this);
        if (model.getMaxWorkers() == 0) { // scaled to none, or removed
            dispatcher.close();
        }
    }

    private synchronized boolean isServing() {
        return channel != null;
    }

    private synchronized boolean isLate() {
        return batch != null && System.nanoTime() - since > responseTimeout * 1_000_000_000L;
    }

    /** Tell whether to start again after a failure: the end of the server is none. */
    @Override
    public boolean isHealthy() {
        return !Server.isEnding() && super.isHealthy();
    }

    /** What TorchServe's loop asks for the next request, and tells when the worker has ended. */
    private static final class Jobs extends BatchAggregator {
        private DirectWorker worker;

        Jobs(Model model) {
            super(model);
        }

        @Override
        public BaseModelRequest getRequest(String id, WorkerState state) throws InterruptedException, ExecutionException {
            if (state == WorkerState.WORKER_MODEL_LOADED) {
                worker.serve(); // until it throws
            }
            return super.getRequest(id, state);
        }

        /** Answer for what the worker had in hand, or leave it to another worker when this one was no longer wanted. */
        @Override
        public void sendError(BaseModelRequest request, String error, int status) {
            List<Job> left = worker.release();
            if (left == null) {
                super.sendError(request, error, status);
            } else if (worker.getState() == WorkerState.WORKER_SCALED_DOWN) {
                worker.dispatcher.takeBack(left);
            } else {
                left.forEach(job -> job.sendError(status, error));
            }
        }
    }

    /** Passes answers on. */
    private final class Answers extends SimpleChannelInboundHandler<ModelWorkerResponse> {
        @Override
        protected void channelRead0(ChannelHandlerContext context, ModelWorkerResponse response) {
            List<Job> jobs = release();
            if (jobs == null) { // it was late, and is answered for
                return;
            }
            model.resetFailedInfReqs();
            dispatcher.isFree(DirectWorker.this); // before its answers are written, for it could work meanwhile
            if (!isServing()) { // it ended just now
                leave();
            }
            boolean whole = response.getCode() == 200 && response.getPredictions().size() == jobs.size();
            for (int index = 0; index < jobs.size(); index++) {
                Job job = jobs.get(index);
                if (!whole) {
                    job.sendError(response.getCode() == 200 ? 500 : response.getCode(), response.getMessage());
                } else if (job.getCmd() == WorkerCommands.DESCRIBE) { // asks nvidia-smi about each GPU: not on this thread
                    Predictions answer = response.getPredictions().get(index);
                    ModelManager.getInstance().submitTask(() -> answer(job, answer));
                } else {
                    answer(job, response.getPredictions().get(index));
                }
            }
        }

        private void answer(Job job, Predictions answer) {
            if (job.getPayload().getClientExpireTS() <= System.currentTimeMillis()) {
                logger.warn("Drop response for inference request {} due to client timeout", job.getJobId());
                return;
            }
            try {
                job.response(answer.getResp(), answer.getContentType(), answer.getStatusCode(), answer.getReasonPhrase(), answer.getHeaders());
            } catch (RuntimeException wrong) { // a header that cannot be sent, for example; the others have theirs
                logger.error("An answer cannot be sent", wrong);
                job.sendError(500, "The answer cannot be sent.");
            }
        }

        @Override
        public void exceptionCaught(ChannelHandlerContext context, Throwable cause) {
            logger.error("Unknown exception", cause);
            context.close(); // the worker is started again
        }
    }
}
