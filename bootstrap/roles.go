package bootstrap

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/auth/rbac/reconciliation"
	schedulingv1 "k8s.io/kubernetes/pkg/apis/scheduling/v1"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

// At a first start some 150 roles and bindings are written; etcd fsyncs those
// that arrive together in one go.
const roleWriters = 16

// ensureRoles brings upstream's default roles and bindings into the cluster.
//
// It does what upstream's own start-up hook does, by the same policy and the
// same reconciliation, except for migrations from releases before 1.13. But
// that hook sleeps a second before it looks, at every start, and then reads
// the objects one by one.
func ensureRoles(ctx context.Context, client kubernetes.Interface) error {
	existing, err := listRoles(ctx, client)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(roleWriters)

	role := func(owner reconciliation.RuleOwner, modifier reconciliation.RuleOwnerModifier) {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			opts := reconciliation.ReconcileRoleOptions{Role: owner, Client: knownRoles{modifier, existing.roles}, Confirm: true}
			if _, err := opts.Run(); err != nil {
				return fmt.Errorf("reconcile role %s: %w", key(owner.GetNamespace(), owner.GetName()), err)
			}
			return nil
		})
	}
	binding := func(b reconciliation.RoleBinding, modifier reconciliation.RoleBindingModifier) {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			opts := reconciliation.ReconcileRoleBindingOptions{RoleBinding: b, Client: knownBindings{modifier, existing.bindings}, Confirm: true}
			if _, err := opts.Run(); err != nil {
				return fmt.Errorf("reconcile role binding %s: %w", key(b.GetNamespace(), b.GetName()), err)
			}
			return nil
		})
	}

	rbac, core := client.RbacV1(), client.CoreV1().Namespaces()
	for _, r := range append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...) {
		role(reconciliation.ClusterRoleRuleOwner{ClusterRole: &r}, reconciliation.ClusterRoleModifier{Client: rbac.ClusterRoles()})
	}
	for _, b := range append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...) {
		binding(reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: &b}, reconciliation.ClusterRoleBindingClientAdapter{Client: rbac.ClusterRoleBindings()})
	}
	for _, roles := range bootstrappolicy.NamespaceRoles() {
		for _, r := range roles {
			role(reconciliation.RoleRuleOwner{Role: &r}, reconciliation.RoleModifier{Client: rbac, NamespaceClient: core})
		}
	}
	for _, bindings := range bootstrappolicy.NamespaceRoleBindings() {
		for _, b := range bindings {
			binding(reconciliation.RoleBindingAdapter{RoleBinding: &b}, reconciliation.RoleBindingClientAdapter{Client: rbac, NamespaceClient: core})
		}
	}
	return group.Wait()
}

// existingRoles are the roles and bindings in the cluster by namespace/name.
type existingRoles struct {
	roles    map[string]reconciliation.RuleOwner
	bindings map[string]reconciliation.RoleBinding
}

func listRoles(ctx context.Context, client kubernetes.Interface) (existingRoles, error) {
	var (
		clusterRoles    *rbacv1.ClusterRoleList
		clusterBindings *rbacv1.ClusterRoleBindingList
		roles           *rbacv1.RoleList
		bindings        *rbacv1.RoleBindingList
	)
	rbac := client.RbacV1()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		clusterRoles, err = rbac.ClusterRoles().List(ctx, metav1.ListOptions{})
		return err
	})
	group.Go(func() (err error) {
		clusterBindings, err = rbac.ClusterRoleBindings().List(ctx, metav1.ListOptions{})
		return err
	})
	group.Go(func() (err error) {
		roles, err = rbac.Roles("").List(ctx, metav1.ListOptions{})
		return err
	})
	group.Go(func() (err error) {
		bindings, err = rbac.RoleBindings("").List(ctx, metav1.ListOptions{})
		return err
	})
	if err := group.Wait(); err != nil {
		return existingRoles{}, fmt.Errorf("list roles: %w", err)
	}
	out := existingRoles{map[string]reconciliation.RuleOwner{}, map[string]reconciliation.RoleBinding{}}
	for i := range clusterRoles.Items {
		out.roles[key("", clusterRoles.Items[i].Name)] = reconciliation.ClusterRoleRuleOwner{ClusterRole: &clusterRoles.Items[i]}
	}
	for i := range roles.Items {
		out.roles[key(roles.Items[i].Namespace, roles.Items[i].Name)] = reconciliation.RoleRuleOwner{Role: &roles.Items[i]}
	}
	for i := range clusterBindings.Items {
		out.bindings[key("", clusterBindings.Items[i].Name)] = reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: &clusterBindings.Items[i]}
	}
	for i := range bindings.Items {
		out.bindings[key(bindings.Items[i].Namespace, bindings.Items[i].Name)] = reconciliation.RoleBindingAdapter{RoleBinding: &bindings.Items[i]}
	}
	return out, nil
}

func key(namespace, name string) string { return namespace + "/" + name }

// knownRoles answers reads from a list made beforehand.
type knownRoles struct {
	reconciliation.RuleOwnerModifier
	existing map[string]reconciliation.RuleOwner
}

func (k knownRoles) Get(namespace, name string) (reconciliation.RuleOwner, error) {
	if r, ok := k.existing[key(namespace, name)]; ok {
		return r.DeepCopyRuleOwner(), nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: "roles"}, name)
}

// knownBindings answers reads from a list made beforehand.
type knownBindings struct {
	reconciliation.RoleBindingModifier
	existing map[string]reconciliation.RoleBinding
}

func (k knownBindings) Get(namespace, name string) (reconciliation.RoleBinding, error) {
	if b, ok := k.existing[key(namespace, name)]; ok {
		return b.DeepCopyRoleBinding(), nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: "rolebindings"}, name)
}

// Delete is followed by a Create: the binding is no longer known.
func (k knownBindings) Delete(namespace, name string, uid types.UID) error {
	return k.RoleBindingModifier.Delete(namespace, name, uid)
}

// ensurePriorityClasses does the same for the two built-in priority classes.
func ensurePriorityClasses(ctx context.Context, client kubernetes.Interface) error {
	classes := client.SchedulingV1().PriorityClasses()
	for _, pc := range schedulingv1.SystemPriorityClasses() {
		_, err := classes.Get(ctx, pc.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = classes.Create(ctx, pc, metav1.CreateOptions{})
		}
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("priority class %s: %w", pc.Name, err)
		}
	}
	return nil
}
